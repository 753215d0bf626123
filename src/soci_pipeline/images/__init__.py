"""Images that are in a registry, read as a graph, with what is wrong with them and the zTOCs that they have."""
