"""Builders: each turns a checked-out commit into an archive or layout, from which a verified OCI layout is made."""
