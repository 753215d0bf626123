"""Read images in a registry as a graph, with findings about faults and their existing zTOCs."""
