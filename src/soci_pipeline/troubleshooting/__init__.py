"""What each error means and what to do about it, for `soci-pipeline explain` and the documentation.

The texts are in ``entries.md``: one heading for each class of error, and for the few outcomes without a class.
"""

from soci_pipeline.troubleshooting.entries import Entry, explained, read_entries

__all__ = ["Entry", "explained", "read_entries"]
