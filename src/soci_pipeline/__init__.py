"""Publish multi-architecture, SOCI-indexed container images.

This package is the library: it knows OCI images, SOCI indexes, registries, build tools and AWS, and nothing of the
orchestrator. The `tasks` and `flows` packages beside it wire the same functions into Prefect.
"""

__version__ = "0.1.0"
