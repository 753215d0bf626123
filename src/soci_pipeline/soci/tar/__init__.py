"""The files of a layer: the stream of tar entries, and the resulting file tree."""
