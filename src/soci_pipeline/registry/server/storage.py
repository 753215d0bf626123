"""Storage of the embedded registry: a folder with one OCI layout per repository.

``index.json`` lists every manifest of the repository; a tag is the annotation ``org.opencontainers.image.ref.name``
(image-spec, annotations.md), and an untagged manifest has no such annotation (see `catalogue`). The folder of
``team/app`` is ``team+app``, because repository names can be nested and cannot contain ``+``.

A `Storage` locks its folder, because two servers would corrupt each other's uploads.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from soci_pipeline.errors import DamagedContent, DiskFull, HostileArchive, InvalidInput
from soci_pipeline.log import logger
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.registry.reference import is_repository
from soci_pipeline.registry.server.files import full_disk_reported
from soci_pipeline.registry.server.folder_lock import FolderLock
from soci_pipeline.registry.server.repository import MOST_ENTRIES, UPLOADS, Repository

_KEPT_SECONDS = 86_400.0
_REAP_SECONDS = 3600.0


class Storage:
    """The repositories in one folder, which is locked until `close`.

    Raises `StackError` if another registry has locked the folder.
    """

    def __init__(self, folder: Path, *, most_entries: int = MOST_ENTRIES, sync: bool = False) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._most_entries = most_entries
        self._sync = sync
        self._folder_lock = FolderLock(folder)
        self._reaped = float("-inf")
        self.reap()
        self._repositories: dict[str, Repository] = {}
        self._lock = threading.Lock()
        self._finish_journals()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write pending changes and unlock the folder."""
        with self._lock:
            for repository in self._repositories.values():
                with _warning_about(repository.layout.path):
                    repository.close()
            self._repositories.clear()
        self._folder_lock.release()

    def _finish_journals(self) -> None:
        """Write ``index.json`` of the repositories in which a killed server left a journal."""
        for journal in self.folder.glob("*/.journal"):
            with _warning_about(journal.parent):
                repository = self.repository(journal.parent.name.replace("+", "/"))
                if repository is not None:
                    repository.flush()

    def reap(self) -> None:
        """Remove files of abandoned uploads that are older than a day; run at most once an hour."""
        now = time.monotonic()
        if now - self._reaped >= _REAP_SECONDS:
            self._reaped = now
            _reap(self.folder)

    def layout_path(self, name: str) -> Path:
        """Return the path of a repository's layout, which may not exist; raise `InvalidInput` for an invalid name."""
        if not is_repository(name):
            raise InvalidInput(f"not a valid repository name: {name[:100]!r}")
        return self.folder / name.replace("/", "+")

    def repository(self, name: str) -> Repository | None:
        """Return a repository, or None if it does not exist."""
        with self._lock:
            return self._repository(name)

    def create(self, name: str) -> Repository:
        """Return a repository, created if it does not exist."""
        with self._lock:
            known = self._repository(name)
            if known is None:
                with full_disk_reported(self.folder):
                    Layout.create(self.layout_path(name))
                known = self._repository(name)
        if known is None:
            raise DamagedContent(f"the layout of {name} was deleted while it was created")
        return known

    def _repository(self, name: str) -> Repository | None:
        path = self.layout_path(name)
        known = self._repositories.get(name)
        if known is not None and not known.exists():
            del self._repositories[name]
            known = None
        if known is None and (path / "index.json").exists():
            layout = Layout.open(path)
            known = Repository(layout, self._folder_lock, most_entries=self._most_entries, sync=self._sync)
            self._repositories[name] = known
        return known

    def holder_of(self, digest: Digest, *, readable: Callable[[str], bool]) -> Repository | None:
        """Return some readable repository that has a blob, or None."""
        for name in self.names():
            repository = self.repository(name) if readable(name) else None
            if repository is not None and repository.blob_size(digest) is not None:
                return repository
        return None

    def names(self) -> tuple[str, ...]:
        """Return the names of all repositories in lexical order."""
        folders = (entry.name for entry in os.scandir(self.folder) if (Path(entry) / "oci-layout").exists())
        return tuple(sorted(folder.replace("+", "/") for folder in folders))


@contextlib.contextmanager
def _warning_about(folder: Path) -> Iterator[None]:
    """Log why ``index.json`` could not be written; the journal has every change, and the next server applies it."""
    try:
        yield
    except (OSError, DiskFull, DamagedContent, HostileArchive, InvalidInput) as error:
        logger().warning("%s cannot be updated: %s", folder, error)


def _reap(folder: Path) -> None:
    """Remove the files of uploads that were not modified for a day."""
    oldest = time.time() - _KEPT_SECONDS
    for pattern in (f"*/{UPLOADS}/*", "*/.incoming/*"):
        for path in folder.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()
