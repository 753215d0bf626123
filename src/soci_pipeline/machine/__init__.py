"""A run on a machine: programs, processes, working folders, and the cleanup after killed runs."""
