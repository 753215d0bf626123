"""The digest of each span, computed while the layer is read."""

import hashlib
from typing import Protocol

from soci_pipeline.soci.gzip.checkpoints import Checkpoint


class SpanDigests(Protocol):
    """Hashes the stored bytes of a layer, given in order."""

    def update(self, view: memoryview) -> None:
        """Hash the next bytes of the file."""

    def finish(self) -> list[bytes]:
        """Return one string ``sha256:…`` for each span."""


class GzipSpanDigests:
    """Digests of spans that start at checkpoints; the gzip header before the first one is in no span."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []
        self._current = hashlib.sha256()
        self._begun = False
        self._last = b""

    def update(self, view: memoryview) -> None:
        """Hash the next bytes of the file."""
        if view:
            self._last = bytes(view[-1:])
            if self._begun:
                self._current.update(view)

    def cut(self, point: Checkpoint) -> None:
        """Start a new span after the bytes so far, or with the last of them if the spans share it."""
        if self._begun:
            self._digests.append(_text(self._current.hexdigest()))
        self._current = hashlib.sha256(self._last if point.bits else b"")
        self._begun = True

    def finish(self) -> list[bytes]:
        """Return one string ``sha256:…`` for each span."""
        if self._begun:
            self._digests.append(_text(self._current.hexdigest()))
        return self._digests


class TarSpanDigests:
    """Digests of spans of equal size; the last may be shorter."""

    def __init__(self, span_size: int) -> None:
        self._span_size = span_size
        self._digests: list[bytes] = []
        self._current = hashlib.sha256()
        self._room = span_size

    def update(self, view: memoryview) -> None:
        """Hash the next bytes of the file."""
        while len(view) > self._room or (view and self._room == 0):
            self._current.update(view[: self._room])
            view = view[self._room :]
            self._digests.append(_text(self._current.hexdigest()))
            self._current, self._room = hashlib.sha256(), self._span_size
        self._current.update(view)
        self._room -= len(view)

    def finish(self) -> list[bytes]:
        """Return one string ``sha256:…`` for each span; an empty file has one span."""
        if self._room < self._span_size or not self._digests:
            self._digests.append(_text(self._current.hexdigest()))
        return self._digests


def _text(digest: str) -> bytes:
    return b"sha256:" + digest.encode()
