"""The benchmarks of `make bench`: each compares with another tool in the same run and reports a ratio."""
