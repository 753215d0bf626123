"""Verification: reads what was pushed back from the registry, through its SOCI indexes, before a tag moves."""
