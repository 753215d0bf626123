"""The blueprint's own toolchain: `ctr` and the `soci` command over a containerd socket."""
