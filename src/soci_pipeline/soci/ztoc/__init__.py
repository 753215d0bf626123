"""zTOCs: built, written, read, kept, and files taken out of a layer by them."""
