"""The gate: what was pushed is read again, through its SOCI indexes, before a tag moves."""
