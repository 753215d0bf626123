"""What the product is about: one branch, the join, the gate, tags and retention. No orchestrator in here."""
