"""git: the program run safely, URLs, effective configuration, and the files of a commit."""
