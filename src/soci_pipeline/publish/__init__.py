"""A publication: its request, source and target, one branch, the join, tags, provenance. No orchestrator in here."""
