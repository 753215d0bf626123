"""Types of the OCI image specification and the on-disk layout. Uses neither the network nor a container engine."""
