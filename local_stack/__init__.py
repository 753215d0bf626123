"""The local stack: everything that `demo` and the real tests start and stop on one machine."""
