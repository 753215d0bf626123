"""Reindexing: adds SOCI indexes to images in a registry, without pulling the whole images."""
