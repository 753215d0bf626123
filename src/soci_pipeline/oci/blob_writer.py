"""Write one blob of an OCI image layout: to a temporary file in the same file system, verified, then renamed."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from soci_pipeline.errors import DamagedContent
from soci_pipeline.full_disk import full_disk_reported, write_all
from soci_pipeline.oci.digest import SHA256, Digest
from soci_pipeline.oci.layout_files import blob_place

INCOMING = ".incoming"
"""Name of the folder in a layout that holds blobs while they are written."""


class BlobWriter:
    """Writer for one blob, stored when the ``with`` block succeeds and deleted when it raises.

    Raises `DamagedContent` if the content differs from ``expected`` or ``size``, at the first byte beyond ``size``, and
    `DiskFull` on a full disk. ``on_stored`` receives the digest and the stat result of the file.
    """

    def __init__(
        self,
        layout: Path,
        on_stored: Callable[[Digest, os.stat_result], None],
        *,
        expected: Digest | None = None,
        size: int | None = None,
    ) -> None:
        self._layout = layout
        self._on_stored = on_stored
        self._expected = expected
        self._size = size
        self._algorithm = SHA256 if expected is None else expected.algorithm
        self._hash = hashlib.new(self._algorithm)
        self._written = 0
        incoming = layout / INCOMING
        with full_disk_reported(layout):
            incoming.mkdir(exist_ok=True)
            handle, name = tempfile.mkstemp(dir=incoming)
        self._path = Path(name)
        self._file = os.fdopen(handle, "wb", buffering=0)
        self.digest: Digest | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes; raise `DamagedContent` if the blob becomes longer than its size."""
        self._written += len(data)
        if self._size is not None and self._written > self._size:
            raise DamagedContent(f"{self._expected or 'a blob'} is longer than the expected {self._size} bytes")
        self._hash.update(data)
        with full_disk_reported(self._layout):
            write_all(self._file, data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # Some file systems report a failed write only on close.
            with full_disk_reported(self._layout):
                self._file.close()
                if kind is None:
                    self._put_in_place()
        finally:
            self._path.unlink(missing_ok=True)

    def _put_in_place(self) -> None:
        digest = Digest(f"{self._algorithm}:{self._hash.hexdigest()}")
        if self._size is not None and self._written != self._size:
            raise DamagedContent(f"{self._expected or digest} has {self._written} bytes, not {self._size}")
        if self._expected is not None and digest != self._expected:
            raise DamagedContent(f"content of {self._expected} has the digest {digest}")
        # Read-only, to prevent accidental writes through a hard link.
        self._path.chmod(0o444)
        self._on_stored(digest, self._path.stat())
        place = self._layout.joinpath(*blob_place(digest))
        place.parent.mkdir(exist_ok=True)
        self._path.rename(place)
        self.digest = digest

    @property
    def written(self) -> int:
        """Number of bytes written so far."""
        return self._written
