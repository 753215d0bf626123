"""The toolchain `containerd`: `ctr` and the `soci` command with a containerd socket, as in the reference pipeline."""
