"""Collect the findings of verification: all faults with their locations, instead of raising the first."""

import contextlib
import threading
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from soci_pipeline.errors import DamagedContent, InvalidInput, LayerNotIndexable, SociPipelineError
from soci_pipeline.registry.errors import BlobUnknown, BrokenAnswer, ManifestUnknown

# Errors that mean that the published content is wrong. Others, such as network or permission errors, are raised.
_FAULTS = (BlobUnknown, BrokenAnswer, DamagedContent, InvalidInput, LayerNotIndexable, ManifestUnknown)


class Finding(BaseModel):
    """One fault: its location (a platform, a digest, a path in a layer) and its description."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Findings:
    """Collects findings and counts checks; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[Finding, None] = {}
        self._checked: dict[str, int] = {}

    def add(self, where: str, what: str) -> None:
        """Add a fault; duplicates are ignored."""
        with self._lock:
            self._found[Finding(where=where, what=what)] = None

    def count(self, kind: str, number: int = 1) -> None:
        """Count checks of a kind, whatever their result."""
        with self._lock:
            self._checked[kind] = self._checked.get(kind, 0) + number

    @contextlib.contextmanager
    def catching(self, where: str) -> Iterator[None]:
        """Turn an error about the content into a finding; propagate all other errors."""
        try:
            yield
        except SociPipelineError as error:
            if error.temporary or not isinstance(error, _FAULTS):
                raise
            self.add(where, error.reason)

    @property
    def found(self) -> tuple[Finding, ...]:
        """All findings, sorted by location."""
        with self._lock:
            return tuple(sorted(self._found, key=lambda each: (each.where, each.what)))

    @property
    def checked(self) -> dict[str, int]:
        """The number of checks of each kind."""
        with self._lock:
            return dict(sorted(self._checked.items()))
