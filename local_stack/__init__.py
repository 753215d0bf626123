"""The local stack: everything that `demo` and the real tests start on one machine, and stop again."""
