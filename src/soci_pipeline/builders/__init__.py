"""Builders: each takes a checked-out commit and ends in a verified OCI layout."""
