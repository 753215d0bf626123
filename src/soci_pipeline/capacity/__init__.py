"""Workers that come and go: how many instances the waiting runs need, and what an instance that must go does first."""
