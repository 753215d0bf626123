"""The OCI distribution spec from both sides: a client for publishers, and an embedded registry."""
