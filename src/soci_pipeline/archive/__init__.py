"""Read untrusted image archives and folders, write archives, and parse tar headers."""
