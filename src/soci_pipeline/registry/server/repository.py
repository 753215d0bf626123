"""A repository of the embedded registry: its blobs, manifests and tags, in an OCI layout."""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO

from soci_pipeline.errors import HostileArchive
from soci_pipeline.log import logger
from soci_pipeline.oci import layout_files
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.registry.referrers import of_type
from soci_pipeline.registry.server.answers import Refusal
from soci_pipeline.registry.server.catalogue import Catalogue
from soci_pipeline.registry.server.files import full_disk_reported, sync_file
from soci_pipeline.registry.server.folder_lock import FolderLock
from soci_pipeline.registry.server.subjects import Subjects

UPLOADS = ".uploads"
"""Name of the folder with a repository's upload sessions."""
MOST_ENTRIES = 100_000
"""Default maximum number of manifests and tags in a repository; it limits pushes, not reads and deletions."""

_TagCheck = Callable[[str, Descriptor | None], None]


class Repository:
    """A repository: blobs by digest, manifests by digest or tag. Thread-safe."""

    def __init__(
        self, layout: Layout, lock: FolderLock, *, most_entries: int = MOST_ENTRIES, sync: bool = False
    ) -> None:
        self.layout = layout
        self._most_entries = most_entries
        self._sync = sync
        self._catalogue = Catalogue(layout.path, sync=sync, folder_lock=lock)
        self._changing = threading.Lock()
        self._subjects = Subjects(layout)

    def blob_size(self, digest: Digest) -> int | None:
        """Return a blob's size, or None if it does not exist or is a link or special file."""
        try:
            status = layout_files.stat_file(self.layout.path, *layout_files.blob_place(digest))
        except HostileArchive as error:
            logger().warning("%s", error.reason)
            return None
        return None if status is None else status.st_size

    def open_blob(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading; raise `FileNotFoundError` if it is not a regular file."""
        try:
            return layout_files.open_file(self.layout.path, *layout_files.blob_place(digest))
        except HostileArchive as error:
            logger().warning("%s", error.reason)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.layout.blob_path(digest)) from error

    def place_blob(self, path: Path, digest: Digest, size: int) -> None:
        """Move an uploaded file to its place as a blob; raise `Refusal` if its size or digest differs."""
        with full_disk_reported(self.layout.path):
            if self._sync:
                sync_file(path)
            with path.open("rb") as file:
                stored, found = os.fstat(file.fileno()).st_size, Digest.of_stream(file, digest.algorithm)
            if stored != size:
                raise Refusal("BLOB_UPLOAD_INVALID", f"only {stored} of {size} bytes are on the disk", status=500)
            if found != digest:
                raise Refusal("DIGEST_INVALID", f"the upload has the digest {found}")
            path.chmod(0o444)
            place = self.layout.blob_path(digest)
            place.parent.mkdir(exist_ok=True)
            path.rename(place)
            if self._sync:
                sync_file(place.parent)

    def delete_blob(self, digest: Digest) -> bool:
        """Remove a blob; return whether it existed."""
        try:
            self.layout.blob_path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def manifest(self, reference: str) -> Descriptor | None:
        """Return the descriptor of a manifest, without annotations, by tag or digest, or None."""
        return self._catalogue.manifest(reference)

    def read(self, descriptor: Descriptor) -> bytes:
        """Return a manifest's bytes; raise `FileNotFoundError` if they were removed."""
        with self.open_blob(descriptor.digest) as file:
            return file.read()

    def tags(self) -> tuple[str, ...]:
        """Return all tags in lexical order."""
        return self._catalogue.tags()

    def missing(self, document: ImageManifest | ImageIndex) -> tuple[Digest, ...]:
        """Return the children of a document that are missing, except layers that may be stored elsewhere."""
        if isinstance(document, ImageIndex):
            return tuple(child.digest for child in document.children if self.manifest(child.digest) is None)
        wanted = (child for child in document.children if not child.may_be_foreign)
        return tuple(child.digest for child in wanted if not self._is_stored(child))

    def _is_stored(self, child: Descriptor) -> bool:
        if self.blob_size(child.digest) == child.size:
            return True
        self._remove_damaged(child.digest)
        return False

    def _remove_damaged(self, digest: Digest) -> None:
        """Remove a blob that does not match its digest, so that it can be pushed again."""
        path = self.layout.blob_path(digest)
        with contextlib.suppress(FileNotFoundError):
            with self.open_blob(digest) as file:
                found = Digest.of_stream(file, digest.algorithm)
            if found != digest:
                logger().warning("removed %s: its digest is %s", path, found)
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
        """Store a manifest and point tags at it; ``digest`` defaults to its sha256 digest.

        ``check_tag`` is called with each tag and the manifest that it points at or None, and raises if the tag must not
        move. Raises `Refusal` if the repository would exceed its maximum number of manifests and tags.
        """
        descriptor = Descriptor(media_type=media_type, digest=digest or Digest.of(data), size=len(data))
        with self._changing, full_disk_reported(self.layout.path):
            for tag in tags:
                check_tag(tag, self.manifest(tag))
            self._check_room(descriptor.digest, tags)
            self._store(data, descriptor)
            self._catalogue.put(descriptor, tags)
            self._subjects.add(descriptor)
        return descriptor

    def _store(self, data: bytes, descriptor: Descriptor) -> None:
        """Write a manifest, replacing a damaged file with the same name."""
        if not self._holds(data, descriptor):
            with self.layout.writer(expected=descriptor.digest, size=descriptor.size) as blob:
                blob.write(data)
        if self._sync:
            place = self.layout.blob_path(descriptor.digest)
            sync_file(place)
            sync_file(place.parent)

    def _holds(self, data: bytes, descriptor: Descriptor) -> bool:
        """Whether exactly these bytes are stored; a disk may have damaged them without changing their size."""
        try:
            return self.blob_size(descriptor.digest) == len(data) and self.read(descriptor) == data
        except FileNotFoundError:
            return False

    def _check_room(self, digest: Digest, tags: Collection[str]) -> None:
        fresh = sum(self.manifest(name) is None for name in {digest, *tags})
        count = len(self._catalogue)
        if fresh and count + fresh > self._most_entries:
            reason = (
                f"the repository has {count} manifests and tags; at most {self._most_entries} are allowed; delete "
                "some first"
            )
            raise Refusal("DENIED", reason, status=507)

    def delete_tag(self, tag: str) -> bool:
        """Delete a tag; its manifest stays. Return whether the tag existed."""
        with self._changing:
            if self.manifest(tag) is None:
                return False
            self._catalogue.delete_tag(tag)
        return True

    def delete_manifest(self, digest: Digest) -> bool:
        """Delete a manifest with all its tags; return whether it existed."""
        with self._changing:
            if self.manifest(digest) is None:
                return False
            # Delete the blob first, because updating the catalogue may need the space that this frees.
            self.delete_blob(digest)
            self._catalogue.delete_manifest(digest)
            self._subjects.remove(digest)
        return True

    def referrers(self, subject: Digest, artifact_type: str | None) -> tuple[Descriptor, ...]:
        """Return the manifests whose subject is this digest, of one artifact type or all."""
        return of_type(self._subjects.referrers(subject, self._catalogue), artifact_type)

    def exists(self) -> bool:
        """Whether the repository's folder still exists."""
        return (self.layout.path / "index.json").exists()

    def flush(self) -> None:
        """Write ``index.json``."""
        self._catalogue.flush()

    def close(self) -> None:
        """Flush and stop the background work."""
        self._catalogue.close()
