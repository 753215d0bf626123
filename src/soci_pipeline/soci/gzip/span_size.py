"""How many bytes of the inflated layer lie between two checkpoints."""

DEFAULT_SPAN_SIZE = 4 << 20
"""The reference's."""
LARGEST_SPAN_SIZE = 1 << 40
"""A span is read whole to reach its last byte; whoever wants larger ones wants no index."""
