"""What a run is on a machine: programs, processes, working folders, what they leave behind, and who removes it."""
