"""The files of a layer: the stream of tar entries, and the tree that they make."""
