"""What `make bench` runs: each figure side by side with the tool that it is compared with, in one run, as a ratio."""
