"""What the embedded registry keeps: under a folder, one OCI layout for each repository.

``index.json`` lists every manifest of the repository; a tag is the annotation ``org.opencontainers.image.ref.name``
(image-spec, annotations.md), and a manifest without a tag is listed without it (see `catalogue`). The folder of
``team/app`` is ``team+app``, since a repository may lie below another one and ``+`` is in no name.

A `Storage` locks its folder: two servers would write into each other's uploads.
"""

import contextlib
import errno
import fcntl
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from soci_pipeline.errors import DamagedContent, DiskFull, HostileArchive, InvalidInput, StackError
from soci_pipeline.log import logger
from soci_pipeline.oci import layout_files
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES, ImageIndex, ImageManifest, parse
from soci_pipeline.registry.reference import is_repository
from soci_pipeline.registry.referrers import entry_of, of_type
from soci_pipeline.registry.server.answers import Refusal
from soci_pipeline.registry.server.catalogue import TAG, Catalogue
from soci_pipeline.registry.server.files import full_disk_reported, sync_file

__all__ = ["TAG", "UPLOADS", "Repository", "Storage"]

UPLOADS = ".uploads"
MOST_ENTRIES = 100_000
"""How many manifests and tags a repository takes. Reading and deleting work beyond that too."""
_KEPT_SECONDS = 86_400.0
_REAP_SECONDS = 3600.0

_TagCheck = Callable[[str, Descriptor | None], None]


class Repository:
    """One repository: blobs by digest, manifests by digest or tag. Threads share it."""

    def __init__(
        self, layout: Layout, lock: "_FolderLock", *, most_entries: int = MOST_ENTRIES, sync: bool = False
    ) -> None:
        self.layout = layout
        self._most_entries = most_entries
        self._sync = sync
        self._catalogue = Catalogue(layout.path, sync=sync, folder_lock=lock)
        self._changing = threading.Lock()
        self._referrers = _Referrers(layout)

    def blob_size(self, digest: Digest) -> int | None:
        """A blob's size, or None where there is none; a link or a special file in its place is not one."""
        try:
            status = layout_files.stat_file(self.layout.path, *_place(digest))
        except HostileArchive as error:
            logger().warning("%s", error.reason)
            return None
        return None if status is None else status.st_size

    def open_blob(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading; raises `FileNotFoundError` where there is no regular file."""
        try:
            return layout_files.open_file(self.layout.path, *_place(digest))
        except HostileArchive as error:
            logger().warning("%s", error.reason)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.layout.blob_path(digest)) from error

    def place_blob(self, path: Path, digest: Digest, size: int) -> None:
        """Move a file to where its blob belongs; raises `Refusal` where the file on the disk is not that blob."""
        with full_disk_reported(self.layout.path):
            if self._sync:
                sync_file(path)
            with path.open("rb") as file:
                stored, found = os.fstat(file.fileno()).st_size, Digest.of_stream(file, digest.algorithm)
            if stored != size:
                raise Refusal("BLOB_UPLOAD_INVALID", f"{stored} of {size} bytes are on the disk", status=500)
            if found != digest:
                raise Refusal("DIGEST_INVALID", f"the upload hashes to {found}")
            path.chmod(0o444)
            place = self.layout.blob_path(digest)
            place.parent.mkdir(exist_ok=True)
            path.rename(place)
            if self._sync:
                sync_file(place.parent)

    def delete_blob(self, digest: Digest) -> bool:
        """Remove a blob; whether there was one."""
        try:
            self.layout.blob_path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def manifest(self, reference: str) -> Descriptor | None:
        """The descriptor of a manifest, without annotations, by tag or digest."""
        return self._catalogue.manifest(reference)

    def read(self, descriptor: Descriptor) -> bytes:
        """A manifest's bytes; raises `FileNotFoundError` where they were removed."""
        with self.open_blob(descriptor.digest) as file:
            return file.read()

    def tags(self) -> tuple[str, ...]:
        """Every tag, in lexical order."""
        return self._catalogue.tags()

    def missing(self, document: ImageManifest | ImageIndex) -> tuple[Digest, ...]:
        """The children of a document that are not here; layers that registries do not hold are not asked for."""
        if isinstance(document, ImageIndex):
            return tuple(child.digest for child in document.children if self.manifest(child.digest) is None)
        wanted = (child for child in document.children if not child.may_be_elsewhere)
        return tuple(child.digest for child in wanted if not self._is_stored(child))

    def _is_stored(self, child: Descriptor) -> bool:
        if self.blob_size(child.digest) == child.size:
            return True
        self._remove_damaged(child.digest)
        return False

    def _remove_damaged(self, digest: Digest) -> None:
        """Remove a blob that is not what its name says, so that it can be pushed again."""
        path = self.layout.blob_path(digest)
        with contextlib.suppress(FileNotFoundError):
            with self.open_blob(digest) as file:
                found = Digest.of_stream(file, digest.algorithm)
            if found != digest:
                logger().warning("%s hashes to %s: removed", path, found)
                path.unlink()

    def put_manifest(
        self,
        data: bytes,
        media_type: str,
        *,
        digest: Digest | None = None,
        tags: Collection[str] = (),
        check_tag: _TagCheck = lambda _tag, _current: None,
    ) -> Descriptor:
        """Store a manifest, under its sha256 digest where no other is given, and point some tags at it.

        ``check_tag`` gets each tag with the manifest that it points at, and raises where it must not move. Raises
        `Refusal` where the repository takes no more manifests or tags.
        """
        descriptor = Descriptor(media_type=media_type, digest=digest or Digest.of(data), size=len(data))
        with self._changing, full_disk_reported(self.layout.path):
            for tag in tags:
                check_tag(tag, self.manifest(tag))
            self._check_room(descriptor.digest, tags)
            self._store(data, descriptor)
            self._catalogue.put(descriptor, tags)
            self._referrers.add(descriptor)
        return descriptor

    def _store(self, data: bytes, descriptor: Descriptor) -> None:
        """Write a manifest, in the place of whatever has its name."""
        if not self._holds(data, descriptor):
            with self.layout.writer(expected=descriptor.digest, size=descriptor.size) as blob:
                blob.write(data)
        if self._sync:
            place = self.layout.blob_path(descriptor.digest)
            sync_file(place)
            sync_file(place.parent)

    def _holds(self, data: bytes, descriptor: Descriptor) -> bool:
        """Whether these bytes are stored; a disk may have damaged them without changing their number."""
        try:
            return self.blob_size(descriptor.digest) == len(data) and self.read(descriptor) == data
        except FileNotFoundError:
            return False

    def _check_room(self, digest: Digest, tags: Collection[str]) -> None:
        fresh = sum(self.manifest(name) is None for name in {digest, *tags})
        count = len(self._catalogue)
        if fresh and count + fresh > self._most_entries:
            reason = (
                f"the repository has {count} manifests and tags, and at most {self._most_entries} are allowed; "
                "delete some of them first"
            )
            raise Refusal("DENIED", reason, status=507)

    def delete_tag(self, tag: str) -> bool:
        """Take a tag away; its manifest stays. Whether there was one."""
        with self._changing:
            if self.manifest(tag) is None:
                return False
            self._catalogue.delete_tag(tag)
        return True

    def delete_manifest(self, digest: Digest) -> bool:
        """Take a manifest away with all its tags; whether there was one."""
        with self._changing:
            if self.manifest(digest) is None:
                return False
            # First, since this frees space, which the change of the catalogue may need.
            self.delete_blob(digest)
            self._catalogue.delete_manifest(digest)
            self._referrers.remove(digest)
        return True

    def referrers(self, subject: Digest, artifact_type: str | None) -> tuple[Descriptor, ...]:
        """The manifests that name a digest as their subject."""
        return of_type(self._referrers.of(subject, self._catalogue), artifact_type)

    def exists(self) -> bool:
        """Whether its folder is still there."""
        return (self.layout.path / "index.json").exists()

    def flush(self) -> None:
        """Bring ``index.json`` up to date."""
        self._catalogue.flush()

    def close(self) -> None:
        """`flush`, and do no more in the background."""
        self._catalogue.close()


def _place(digest: Digest) -> tuple[str, str, str]:
    return "blobs", digest.algorithm, digest.hex


class _Referrers:
    """The manifests by their subject. Each is read once, when referrers are first asked for, or when it is pushed."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._subjects: dict[Digest, Digest | None] = {}
        self._listed: dict[Digest, dict[Digest, Descriptor]] = {}

    def add(self, descriptor: Descriptor) -> None:
        with self._lock:
            self._learn(descriptor)

    def remove(self, digest: Digest) -> None:
        with self._lock:
            subject = self._subjects.pop(digest, None)
            if subject is not None:
                self._listed[subject].pop(digest, None)

    def of(self, subject: Digest, catalogue: Catalogue) -> list[Descriptor]:
        for descriptor in catalogue.manifests():
            # Not under one lock: pushes need not wait until thousands are read.
            if descriptor.digest not in self._subjects:
                self.add(descriptor)
        with self._lock:
            found = dict(self._listed.get(subject, {}))
        return [found[digest] for digest in sorted(found) if catalogue.manifest(digest) is not None]

    def _learn(self, descriptor: Descriptor) -> None:
        try:
            data = layout_files.read_file(self._layout.path, *_place(descriptor.digest), limit=MAX_MANIFEST_BYTES)
            document = parse(data, media_type=descriptor.media_type, any_algorithm=True)
        except (OSError, InvalidInput, HostileArchive):
            self._subjects[descriptor.digest] = None
            return
        subject = document.subject.digest if document.subject else None
        self._subjects[descriptor.digest] = subject
        if subject is not None:
            self._listed.setdefault(subject, {})[descriptor.digest] = entry_of(document, descriptor.plain)


class Storage:
    """Every repository below one folder, which is locked until `close`; raises `StackError` where another has it."""

    def __init__(self, folder: Path, *, most_entries: int = MOST_ENTRIES, sync: bool = False) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._most_entries = most_entries
        self._sync = sync
        self._folder_lock = _FolderLock(folder)
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
        """Finish writing, and let another server have the folder."""
        with self._lock:
            for repository in self._repositories.values():
                with _warning_about(repository.layout.path):
                    repository.close()
            self._repositories.clear()
        self._folder_lock.release()

    def _finish_journals(self) -> None:
        """Bring up to date what a killed server did not."""
        for journal in self.folder.glob("*/.journal"):
            with _warning_about(journal.parent):
                repository = self.repository(journal.parent.name.replace("+", "/"))
                if repository is not None:
                    repository.flush()

    def reap(self) -> None:
        """Remove what uploads of a day ago left, at most once an hour."""
        now = time.monotonic()
        if now - self._reaped >= _REAP_SECONDS:
            self._reaped = now
            _reap(self.folder)

    def layout_path(self, name: str) -> Path:
        """Where a repository's layout lies, or would lie."""
        if not is_repository(name):
            raise InvalidInput(f"not a repository name: {name[:100]!r}")
        return self.folder / name.replace("/", "+")

    def repository(self, name: str) -> Repository | None:
        """An existing repository."""
        with self._lock:
            return self._repository(name)

    def create(self, name: str) -> Repository:
        """A repository, made where there is none."""
        with self._lock:
            known = self._repository(name)
            if known is None:
                with full_disk_reported(self.folder):
                    Layout.create(self.layout_path(name))
                known = self._repository(name)
        if known is None:
            raise DamagedContent(f"the layout of {name} went away while it was made")
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
        """Some repository that has a blob, of those that may be read."""
        for name in self.names():
            repository = self.repository(name) if readable(name) else None
            if repository is not None and repository.blob_size(digest) is not None:
                return repository
        return None

    def names(self) -> tuple[str, ...]:
        """Every repository, in lexical order."""
        folders = (entry.name for entry in os.scandir(self.folder) if (Path(entry) / "oci-layout").exists())
        return tuple(sorted(folder.replace("+", "/") for folder in folders))


class _FolderLock:
    """The lock that says that this process serves a folder. It ends with the process or with its last holder."""

    def __init__(self, folder: Path) -> None:
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        self.release = weakref.finalize(self, os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise StackError(
                f"{folder} is already served by another registry",
                advice="Stop that one or name another folder: two registries would damage each other's uploads.",
            ) from error
        except OSError as error:
            self.release()
            raise StackError(f"cannot lock {folder}: {error.strerror}", advice="Use a local disk.") from error


@contextlib.contextmanager
def _warning_about(folder: Path) -> Iterator[None]:
    """Log why ``index.json`` stays behind: the journal has every change, and the next server goes on from there."""
    try:
        yield
    except (OSError, DiskFull, DamagedContent, HostileArchive, InvalidInput) as error:
        logger().warning("%s cannot be brought up to date: %s", folder, error)


def _reap(folder: Path) -> None:
    """Remove what abandoned uploads left and nobody has touched for a day."""
    oldest = time.time() - _KEPT_SECONDS
    for pattern in (f"*/{UPLOADS}/*", "*/.incoming/*"):
        for path in folder.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()
