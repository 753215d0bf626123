"""The OCI distribution spec, client and server: a client for publishers and an embedded registry."""
