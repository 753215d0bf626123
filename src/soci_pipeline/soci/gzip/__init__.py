"""A compressed layer: inflated, cut into spans, with the checkpoints at which reading can begin."""
