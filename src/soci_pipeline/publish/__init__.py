"""A publication: its request, source and target, one branch, the join, tags and provenance; without an orchestrator."""
