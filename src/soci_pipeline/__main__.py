"""``python -m soci_pipeline`` is the `soci-pipeline` command, for processes that start another one of it."""

from soci_pipeline.cli import entry

entry()
