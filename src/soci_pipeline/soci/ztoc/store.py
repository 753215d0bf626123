"""Caches of zTOCs, which are looked up before building: a zTOC depends only on the fields of `ZtocKey`.

A store may lose any zTOC at any time. The caller (`layers`) validates what it returns, so a faulty store can make
indexing slow but not wrong.
"""

import contextlib
import fcntl
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from soci_pipeline.log import logger
from soci_pipeline.oci.digest import Digest

DEFAULT_CACHE_BYTES: Final = 2 << 30
_CHECKSUM: Final = hashlib.sha256().digest_size
_INCOMING: Final = ".incoming."
_FORM: Final = "1"  # format version in each cache key; after a change, old files are eventually pruned


class ZtocKey(NamedTuple):
    """Cache key: everything that the bytes of a zTOC depend on."""

    layer_digest: Digest
    media_type: str
    span_size: int
    build_tool: str


class ZtocStore(Protocol):
    """A cache of zTOCs, called from several threads."""

    def get(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str) -> bytes | None:
        """Return the zTOC of a layer, or None if it is not in the store."""

    def put(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str, data: bytes) -> None:
        """Store a zTOC."""


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """A cache folder of zTOCs, which several processes may share; evicts the least recently used when it is full.

    ``max_bytes`` limits the size of the folder. Files are written atomically and contain a checksum, which detects
    corruption. Errors while writing only log a warning, since the zTOC has already been built.
    """

    path: Path
    max_bytes: int = DEFAULT_CACHE_BYTES

    def get(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str) -> bytes | None:
        """Return the zTOC of a layer, or None if it is missing or corrupt."""
        path = self._place(ZtocKey(layer_digest, media_type, span_size, build_tool))
        try:
            stored = path.read_bytes()
            data = stored[_CHECKSUM:]
            if hashlib.sha256(data).digest() != stored[:_CHECKSUM]:
                logger().warning("the cached zTOC %s is damaged and is built again", path)
                path.unlink(missing_ok=True)
                return None
            os.utime(path)
        except OSError:
            return None
        return data

    def put(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str, data: bytes) -> None:
        """Store a zTOC, then prune the cache."""
        if len(data) + _CHECKSUM > self.max_bytes:
            return
        path = self._place(ZtocKey(layer_digest, media_type, span_size, build_tool))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._write(path, data)
            self._prune()
        except OSError as error:
            logger().warning("cannot write to the zTOC cache in %s: %s", self.path, error.strerror)

    def _place(self, key: ZtocKey) -> Path:
        name = "\0".join((_FORM, *map(str, key)))
        return self.path / f"{hashlib.sha256(name.encode()).hexdigest()}.ztoc"

    def _write(self, path: Path, data: bytes) -> None:
        handle, name = self._incoming()
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(data).digest())
                file.write(data)
                file.flush()
                Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise

    def _incoming(self) -> tuple[int, str]:
        """Create a temporary file and lock it; a file without a lock was left behind by a killed process."""
        while True:
            handle, name = tempfile.mkstemp(dir=self.path, prefix=_INCOMING)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink:
                return handle, name
            # Another process removed it as abandoned before it was locked.
            os.close(handle)

    def _prune(self) -> None:
        """Delete the least recently used files until the rest fits; other processes may prune concurrently."""
        found: list[tuple[float, int, Path]] = []
        for path in self.path.iterdir():
            with contextlib.suppress(OSError):
                if path.name.startswith(_INCOMING):
                    _remove_abandoned(path)
                    continue
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found, key=lambda item: item[0]):
            if total <= self.max_bytes:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size


def _remove_abandoned(path: Path) -> None:
    """Remove an incomplete file unless its writer is still running and holds the lock."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        path.unlink(missing_ok=True)
