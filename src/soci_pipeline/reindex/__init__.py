"""Images that are in a registry already get SOCI indexes, without being fetched whole."""
