"""Span sizes: the number of bytes of the inflated layer between two checkpoints."""

DEFAULT_SPAN_SIZE = 4 << 20
"""The default of the reference (soci-snapshotter)."""
LARGEST_SPAN_SIZE = 1 << 40
"""Upper limit. Reading the last byte of a span requires the whole span, so larger spans would be useless."""
