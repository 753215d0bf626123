"""What the embedded registry keeps: under a folder, one OCI layout for each repository.

``index.json`` lists every manifest of the repository; a tag is the annotation ``org.opencontainers.image.ref.name``
(image-spec, annotations.md), and a manifest without a tag is listed without it. Changes of that file hold a lock on
``.lock``, so that several processes may serve one folder. The folder of ``team/app`` is ``team+app``, since a
repository may lie below another one and ``+`` is in no name.
"""

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from soci_pipeline.errors import DamagedContent, InvalidInput
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest, parse
from soci_pipeline.registry.reference import is_repository
from soci_pipeline.registry.referrers import entry_of, of_type

UPLOADS = ".uploads"
_KEPT_SECONDS = 86_400.0
TAG = "org.opencontainers.image.ref.name"


class Repository:
    """One repository: blobs by digest, manifests by digest or tag."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._threads = threading.Lock()
        self._listed: tuple[tuple[int, int, int], tuple[Descriptor, ...]] | None = None
        self._referrers: dict[Digest, tuple[Digest | None, Descriptor]] = {}

    def blob_size(self, digest: Digest) -> int | None:
        """A blob's size, or None where there is none."""
        try:
            return self.layout.blob_path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def delete_blob(self, digest: Digest) -> bool:
        """Remove a blob; whether there was one."""
        try:
            self.layout.blob_path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def manifest(self, reference: str) -> Descriptor | None:
        """The descriptor of a manifest, without annotations, by tag or digest."""
        for entry in self._entries():
            if reference in (entry.digest, entry.annotations.get(TAG)):
                return entry.plain
        return None

    def read(self, descriptor: Descriptor) -> bytes:
        """A manifest's bytes."""
        return self.layout.blob_path(descriptor.digest).read_bytes()

    def tags(self) -> tuple[str, ...]:
        """Every tag, in lexical order."""
        return tuple(sorted(entry.annotations[TAG] for entry in self._entries() if TAG in entry.annotations))

    def missing(self, document: ImageManifest | ImageIndex) -> tuple[Digest, ...]:
        """The children of a document that are not here; layers that registries do not hold are not asked for."""
        known = {entry.digest for entry in self._entries()}
        if isinstance(document, ImageIndex):
            return tuple(child.digest for child in document.children if child.digest not in known)
        wanted = (child for child in document.children if not child.may_be_elsewhere)
        return tuple(child.digest for child in wanted if not self.layout.has(child))

    def put_manifest(
        self, data: bytes, media_type: str, *, digest: Digest | None = None, tags: Collection[str] = ()
    ) -> Descriptor:
        """Store a manifest, under its sha256 digest where no other is given, and point some tags at it."""
        descriptor = Descriptor(media_type=media_type, digest=digest or Digest.of(data), size=len(data))
        self.layout.add_chunks([data], descriptor)
        with self._changing() as entries:
            others = [entry for entry in entries if entry.annotations.get(TAG) not in tags]
            displaced = [entry.plain for entry in entries if entry.annotations.get(TAG) in tags]
            added = [descriptor.annotated(annotations={TAG: tag}) for tag in tags] or [descriptor]
            entries[:] = _tidy([*others, *added, *displaced])
        return descriptor

    def delete_tag(self, tag: str) -> bool:
        """Take a tag away; its manifest stays. Whether there was one."""
        with self._changing() as entries:
            tagged = [entry for entry in entries if entry.annotations.get(TAG) == tag]
            others = [entry for entry in entries if entry.annotations.get(TAG) != tag]
            entries[:] = _tidy([*others, *(entry.plain for entry in tagged)])
        return bool(tagged)

    def delete_manifest(self, digest: Digest) -> bool:
        """Take a manifest away with all its tags; whether there was one."""
        with self._changing() as entries:
            left = [entry for entry in entries if entry.digest != digest]
            found = len(left) < len(entries)
            entries[:] = left
            if found:
                self.delete_blob(digest)
        return found

    def referrers(self, subject: Digest, artifact_type: str | None) -> tuple[Descriptor, ...]:
        """The manifests that name a digest as their subject."""
        known = {entry.digest: entry.plain for entry in self._entries()}
        described = (self._described(entry) for _, entry in sorted(known.items()))
        return of_type((entry for target, entry in described if target == subject), artifact_type)

    def _described(self, descriptor: Descriptor) -> tuple[Digest | None, Descriptor]:
        # A manifest never changes under its digest, so it is read once.
        known = self._referrers.get(descriptor.digest)
        if known is None:
            try:
                document = parse(self.read(descriptor), media_type=descriptor.media_type, any_algorithm=True)
            except (OSError, InvalidInput):
                return None, descriptor
            target = document.subject.digest if document.subject else None
            known = self._referrers[descriptor.digest] = target, entry_of(document, descriptor)
        return known

    def _entries(self) -> tuple[Descriptor, ...]:
        state = (self.layout.path / "index.json").stat()
        mark = (state.st_ino, state.st_mtime_ns, state.st_size)
        listed = self._listed
        if listed is None or listed[0] != mark:
            listed = self._listed = mark, self.layout.roots()
        return listed[1]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Descriptor]]:
        with self._threads, (self.layout.path / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self.layout.roots()
            entries = list(before)
            yield entries
            if tuple(entries) != before:
                self.layout.set_roots(entries)


class Storage:
    """Every repository below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        _reap(folder)
        self._repositories: dict[str, Repository] = {}
        self._lock = threading.Lock()

    def layout_path(self, name: str) -> Path:
        """Where a repository's layout lies, or would lie."""
        if not is_repository(name):
            raise InvalidInput(f"not a repository name: {name[:100]!r}")
        return self.folder / name.replace("/", "+")

    def repository(self, name: str) -> Repository | None:
        """An existing repository."""
        with self._lock:
            known = self._repositories.get(name)
            if known is None and (self.layout_path(name) / "index.json").exists():
                known = self._repositories[name] = Repository(Layout.open(self.layout_path(name)))
            return known

    def create(self, name: str) -> Repository:
        """A repository, made where there is none."""
        known = self.repository(name)
        if known is None:
            Layout.create(self.layout_path(name))
            known = self.repository(name)
        if known is None:
            raise DamagedContent(f"the layout of {name} went away while it was made")
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


def _reap(folder: Path) -> None:
    """Remove what uploads of a killed server left and nobody has touched for a day."""
    oldest = time.time() - _KEPT_SECONDS
    for pattern in (f"*/{UPLOADS}/*", "*/.incoming/*"):
        for path in folder.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def _tidy(entries: list[Descriptor]) -> list[Descriptor]:
    """Each tag once; an entry without a tag only where the manifest has none."""
    tagged = {entry.digest for entry in entries if TAG in entry.annotations}
    kept: dict[tuple[str, str | None], Descriptor] = {}
    for entry in entries:
        tag = entry.annotations.get(TAG)
        if tag is not None or entry.digest not in tagged:
            kept.setdefault((entry.digest, tag), entry)
    return list(kept.values())
