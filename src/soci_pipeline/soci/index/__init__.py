"""SOCI indexes of images: which layers get a zTOC, the index itself, and the converted image."""
