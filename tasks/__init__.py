"""Prefect tasks: each combines a retry policy, one call into the library, and what the UI shows of it."""
