"""A blob in a registry as a file that is read once, from its beginning to its end; nothing of it is kept."""

import contextlib
import io
from collections.abc import Callable, Iterator

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.registry.client import RegistryClient


class BlobReader(io.RawIOBase):
    """Reads pieces as they come; ``also`` gets each of them first.

    The stream's own check of the digest happens when its end is reached.
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
        """Read what is left, so that the digest of the whole is checked."""
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
    """The blob, while the block runs; raises `ContentMismatch` when its end is reached and it was not that blob."""
    with client.blobs.stream(repository, descriptor) as pieces:
        yield BlobReader(pieces, also)
