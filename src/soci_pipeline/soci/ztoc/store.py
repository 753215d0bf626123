"""Where zTOCs are looked up before they are built: each is a function of what `ZtocKey` names.

A store may lose anything at any time. What it gives is checked by the one who asked (`layers`), so a store cannot make
an index wrong, only slow.
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
_FORM: Final = "1"  # part of each name; a new number leaves the files of older versions to be pruned


class ZtocKey(NamedTuple):
    """All that a zTOC's bytes depend on."""

    layer_digest: Digest
    media_type: str
    span_size: int
    build_tool: str


class ZtocStore(Protocol):
    """Keeps zTOCs; called from several threads."""

    def get(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str) -> bytes | None:
        """The zTOC of a layer, None where it is not known."""

    def put(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str, data: bytes) -> None:
        """Keep a zTOC."""


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """A folder of zTOCs that several processes may use at once; the least recently used go when it is full.

    ``max_bytes`` bounds the folder. A file appears whole or not at all, and its own checksum tells a damaged one. A
    folder that cannot be written is no failure: the zTOC was built all the same.
    """

    path: Path
    max_bytes: int = DEFAULT_CACHE_BYTES

    def get(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str) -> bytes | None:
        """The zTOC of a layer, None where it is not there or damaged."""
        path = self._place(ZtocKey(layer_digest, media_type, span_size, build_tool))
        try:
            stored = path.read_bytes()
            data = stored[_CHECKSUM:]
            if hashlib.sha256(data).digest() != stored[:_CHECKSUM]:
                logger().warning("the cached zTOC %s is damaged and is made again", path)
                path.unlink(missing_ok=True)
                return None
            os.utime(path)
        except OSError:
            return None
        return data

    def put(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str, data: bytes) -> None:
        """Keep a zTOC, and make room for it."""
        if len(data) + _CHECKSUM > self.max_bytes:
            return
        path = self._place(ZtocKey(layer_digest, media_type, span_size, build_tool))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._write(path, data)
            self._prune()
        except OSError as error:
            logger().warning("the zTOC cache in %s cannot be written: %s", self.path, error.strerror)

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
        """A new file with a lock that lasts as long as this process, by which others tell it from a killed one's."""
        while True:
            handle, name = tempfile.mkstemp(dir=self.path, prefix=_INCOMING)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink:
                return handle, name
            # Somebody took it for an abandoned one before it was locked.
            os.close(handle)

    def _prune(self) -> None:
        """Delete the least recently used files until the rest fits; other processes may be doing the same."""
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
    """Remove a half-written file unless its writer lives, which then holds the lock on it."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        path.unlink(missing_ok=True)
