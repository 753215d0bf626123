"""zTOCs: build, encode, decode and cache them, and extract files from a layer with them."""
