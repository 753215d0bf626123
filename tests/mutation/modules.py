"""The modules whose tests are tried, the tests that cover them, and the mutants that no test can or should notice."""

from dataclasses import dataclass
from typing import Final

MODULES: Final[dict[str, tuple[str, ...]]] = {
    "soci/tar_stream": ("soci/test_tar_stream", "soci/test_ztoc_bounds"),
    "soci/ztoc_writer": ("soci/test_ztoc_writer", "soci/test_known_answers"),
    "publish/join": ("publish/test_join",),
    "publish/tags": ("publish/test_tags",),
    "registry/transport": ("registry/test_transport", "registry/test_authorizer", "registry/test_permissions"),
    "webhook/outbox": ("webhook/test_outbox",),
}
"""A module below ``src/soci_pipeline`` and the tests below ``tests/unit`` that cover it, the quickest first."""


@dataclass(frozen=True, slots=True)
class Explained:
    """A mutant that survives, as lines without their indentation, and why that is no gap in the tests."""

    module: str
    before: str
    after: str
    reason: str


EXPLAINED: Final[tuple[Explained, ...]] = ()
