"""Values of the OCI image specification and the on-disk layout. No network, no engine."""
