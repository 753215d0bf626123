"""Stream a blob from a registry as a sequential file, without storing it."""

import contextlib
import io
from collections.abc import Callable, Iterator

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.registry.client import RegistryClient


class BlobReader(io.RawIOBase):
    """Reads chunks from an iterator; each is passed to ``also`` first.

    The iterator verifies the digest when it reaches the end.
    """

    def __init__(self, pieces: Iterator[bytes], also: Callable[[bytes], None] | None = None) -> None:
        super().__init__()
        self._pieces = pieces
        self._also = also
        self._left = memoryview(b"")
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        while not self._left:
            piece = self._next()
            if piece is None:
                return 0
            self._left = memoryview(piece)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def drain(self) -> None:
        """Read the rest of the blob, so that its digest is verified."""
        self._left = memoryview(b"")
        while self._next() is not None:
            pass

    def _next(self) -> bytes | None:
        piece = next(self._pieces, None)
        if piece is not None:
            self.taken += len(piece)
            if self._also is not None:
                self._also(piece)
        return piece


@contextlib.contextmanager
def open_blob(
    client: RegistryClient, repository: str, descriptor: Descriptor, *, also: Callable[[bytes], None] | None = None
) -> Iterator[BlobReader]:
    """Open a blob for the duration of the block; raise `ContentMismatch` at its end if the digest does not match."""
    with client.blobs.stream(repository, descriptor) as pieces:
        yield BlobReader(pieces, also)
