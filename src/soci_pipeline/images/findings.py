"""What the gate finds: every fault with its place, instead of the first one as an exception."""

import contextlib
import threading
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from soci_pipeline.errors import DamagedContent, InvalidInput, LayerNotIndexable, SociPipelineError
from soci_pipeline.registry.errors import BlobUnknown, BrokenAnswer, ManifestUnknown

# What says that the published content is wrong. Anything else (no route, no permission) says nothing of it and rises.
_FAULTS = (BlobUnknown, BrokenAnswer, DamagedContent, InvalidInput, LayerNotIndexable, ManifestUnknown)


class Finding(BaseModel):
    """One fault: where it is (a platform, a digest, a path in a layer) and what is wrong there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Findings:
    """Gathers findings and counts what was checked, from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[Finding, None] = {}
        self._checked: dict[str, int] = {}

    def add(self, where: str, what: str) -> None:
        """Note a fault; the same one twice counts once."""
        with self._lock:
            self._found[Finding(where=where, what=what)] = None

    def count(self, kind: str, number: int = 1) -> None:
        """Note that something was checked, whatever came of it."""
        with self._lock:
            self._checked[kind] = self._checked.get(kind, 0) + number

    @contextlib.contextmanager
    def catching(self, where: str) -> Iterator[None]:
        """Turn an error that speaks of the content into a finding; every other error rises."""
        try:
            yield
        except SociPipelineError as error:
            if error.temporary or not isinstance(error, _FAULTS):
                raise
            self.add(where, error.reason)

    @property
    def found(self) -> tuple[Finding, ...]:
        """All findings, by place."""
        with self._lock:
            return tuple(sorted(self._found, key=lambda each: (each.where, each.what)))

    @property
    def checked(self) -> dict[str, int]:
        """How many of each kind were checked."""
        with self._lock:
            return dict(sorted(self._checked.items()))
