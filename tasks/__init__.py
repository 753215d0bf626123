"""Prefect tasks: each is a retry policy, one call into the library, and what the UI should show of it."""
