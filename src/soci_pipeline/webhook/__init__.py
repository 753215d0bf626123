"""The receiver: verify a signed event, store it, start a publication."""
