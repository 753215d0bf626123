"""The default build tool identifier, in a separate module so that `--help` does not have to import the indexer."""

from typing import Final

from soci_pipeline._version import __version__

BUILD_TOOL: Final = f"soci-pipeline/{__version__}"
"""Build tool identifier in this project's zTOCs and SOCI indexes; part of their digest."""
