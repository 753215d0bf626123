"""git: the program made safe, addresses, the configuration that counts, and the files of a commit."""
