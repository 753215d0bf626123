"""SOCI indexes of images: select and index layers, build the index, and convert the image."""
