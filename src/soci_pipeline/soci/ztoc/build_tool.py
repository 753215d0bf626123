"""The default maker of zTOCs, in a module of its own: the help of a command shows it without importing the indexer."""

from typing import Final

from soci_pipeline._version import __version__

BUILD_TOOL: Final = f"soci-pipeline/{__version__}"
"""What this project's zTOCs and SOCI indexes say they were made by; part of their digest."""
