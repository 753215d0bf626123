"""The native SOCI indexer: tar entries, gzip checkpoints, zTOCs, SOCI indexes v1 and v2."""
