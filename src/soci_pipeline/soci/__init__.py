"""The native SOCI indexer: tar contents, gzip checkpoints, zTOCs, SOCI indexes v1 and v2."""
