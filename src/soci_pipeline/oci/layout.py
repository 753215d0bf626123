"""OCI image layouts on disk (image-spec, image-layout.md): blobs by digest, verified while they are written.

A blob gets its name only when it is complete: write a temporary file in the same file system, verify, rename. Several
processes may write to the same layout.

A layout may come from an untrusted source. Its files are opened without following links, and only regular files inside
the folder are read (`layout_files`). `Layout.take_over` and `Layout.open_verified` hash blobs that this object has not
verified yet; a verified blob is not hashed again until its file changes.
"""

import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Self, cast

from soci_pipeline.errors import DamagedContent, InvalidInput
from soci_pipeline.full_disk import full_disk_reported
from soci_pipeline.oci import layout_files
from soci_pipeline.oci.blob_writer import INCOMING, BlobWriter
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import SHA256, Digest
from soci_pipeline.oci.index_file import MAX_INDEX_FILE_BYTES, parse_roots
from soci_pipeline.oci.manifest import (
    MAX_DEPTH,
    MAX_MANIFEST_BYTES,
    ImageIndex,
    ImageManifest,
    parse,
)
from soci_pipeline.oci.media_types import IMAGE_INDEXES, IMAGE_MANIFESTS

LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_MAX_LAYOUT_FILE_BYTES = 1 << 16
_MAKE_ONE = (
    "Use the folder of an OCI layout: `docker buildx build --output type=oci,tar=false,dest=FOLDER` creates one, and "
    "`soci-pipeline convert` creates one from an archive."
)


class Layout:
    """An OCI image layout in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._verified: dict[Digest, layout_files.Identity] = {}

    @classmethod
    def create(cls, path: Path) -> Self:
        """Create an empty layout, or open an existing one."""
        with full_disk_reported(path):
            (path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        layout = cls(path)
        _replace(path / "oci-layout", LAYOUT_FILE)
        if not (path / "index.json").exists():
            layout.set_roots(())
        return layout

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing layout.

        Raises `InvalidInput` if it is not a layout, and `HostileArchive` if ``oci-layout`` is not a regular file.
        """
        try:
            data = layout_files.read_file(path, "oci-layout", limit=_MAX_LAYOUT_FILE_BYTES)
            version = json.loads(data).get("imageLayoutVersion")
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise _not_a_layout(path) from error
        if version != "1.0.0":
            raise InvalidInput(f"{path} is an OCI image layout of version {version!r}; only 1.0.0 is supported")
        return cls(path)

    def blob_path(self, digest: Digest) -> Path:
        """Return the path of a blob, whether or not it exists."""
        return self.path.joinpath(*layout_files.blob_place(digest))

    def has(self, descriptor: Descriptor) -> bool:
        """Return whether the blob exists with that size; raise `HostileArchive` for a link or a special file.

        The content is not read: in a layout from an untrusted source it may have a different digest.
        """
        status = layout_files.stat_file(self.path, *layout_files.blob_place(descriptor.digest))
        return status is not None and status.st_size == descriptor.size

    def is_verified(self, descriptor: Descriptor) -> bool:
        """Return whether this object has verified the blob and its file has not changed since."""
        status = layout_files.stat_file(self.path, *layout_files.blob_place(descriptor.digest))
        return status is not None and self._verified.get(descriptor.digest) == layout_files.identity(status)

    def mark_verified(self, digest: Digest, status: os.stat_result) -> None:
        """Record that the content of the file with this stat result matches the digest."""
        self._verified[digest] = layout_files.identity(status)

    def writer(self, *, expected: Digest | None = None, size: int | None = None) -> BlobWriter:
        """Return a writer for one blob; see `BlobWriter`."""
        return BlobWriter(self.path, self.mark_verified, expected=expected, size=size)

    def add_bytes(self, data: bytes, media_type: str) -> Descriptor:
        """Store bytes under their sha256 digest and return the descriptor."""
        descriptor = Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))
        if not self.has(descriptor):
            with self.writer(expected=descriptor.digest, size=len(data)) as blob:
                blob.write(data)
        return descriptor

    def add_chunks(self, chunks: Iterable[bytes], descriptor: Descriptor) -> Descriptor:
        """Store a blob with a known descriptor from an iterable of chunks, unless it already exists."""
        if not self.has(descriptor):
            with self.writer(expected=descriptor.digest, size=descriptor.size) as blob:
                for chunk in chunks:
                    blob.write(chunk)
        return descriptor

    def add_document(self, document: ImageManifest | ImageIndex) -> Descriptor:
        """Store a manifest or an index and return its descriptor."""
        return self.add_bytes(document.encode(), document.media_type)

    def link_from(self, source: "Layout", descriptor: Descriptor) -> None:
        """Hard-link a blob from a layout that this program has written, without reading it.

        Falls back to a verified copy if linking fails, for example across file systems.
        """
        self._take(source, descriptor, verify=False)

    def take_over(self, source: "Layout", descriptor: Descriptor) -> None:
        """Like `link_from`, but for an untrusted layout: verify the content unless ``source`` has already done so.

        Raises `DamagedContent`, and does not store the blob, if its content does not match its digest.
        """
        self._take(source, descriptor, verify=True)

    def _take(self, source: "Layout", descriptor: Descriptor, *, verify: bool) -> None:
        if self.has(descriptor):
            return
        incoming = self.path / INCOMING
        incoming.mkdir(exist_ok=True)
        link = incoming / f"link-{uuid.uuid4().hex}"
        try:
            layout_files.link_file(source.path, layout_files.blob_place(descriptor.digest), link)
        except OSError:
            # A different file system, one without hard links, or a missing file, which `open_blob` reports.
            with source.open_blob(descriptor) as blob:
                self.add_chunks(iter(lambda: blob.read(1 << 20), b""), descriptor)
            return
        try:
            self._put_link(link, source, descriptor, verify=verify)
        finally:
            link.unlink(missing_ok=True)

    def _put_link(self, link: Path, source: "Layout", descriptor: Descriptor, *, verify: bool) -> None:
        """Verify the linked file and rename it; ``source`` is not read, since its file may have been replaced."""
        with layout_files.open_file(link.parent, link.name) as blob:
            status = os.fstat(blob.fileno())
            _check_size(descriptor, status.st_size, source.path)
            if source._verified.get(descriptor.digest) == layout_files.identity(status):
                self.mark_verified(descriptor.digest, status)
            elif verify:
                _check_digest(descriptor, Digest.of_stream(blob, descriptor.digest.algorithm), source.path)
                source.mark_verified(descriptor.digest, status)
                self.mark_verified(descriptor.digest, status)
        place = self.blob_path(descriptor.digest)
        place.parent.mkdir(exist_ok=True)
        link.rename(place)

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        """Open a blob for reading, without verifying its digest.

        Raises `DamagedContent` if it is missing or has a different size, and `HostileArchive` if it is not a regular
        file inside the layout.
        """
        try:
            blob = layout_files.open_file(self.path, *layout_files.blob_place(descriptor.digest))
        except FileNotFoundError as error:
            raise self._missing(descriptor) from error
        try:
            _check_size(descriptor, os.fstat(blob.fileno()).st_size, self.path)
        except DamagedContent:
            blob.close()
            raise
        return blob

    def open_verified(self, descriptor: Descriptor) -> BinaryIO:
        """Like `open_blob`, but reading the last bytes raises `DamagedContent` if the digest does not match."""
        blob = self.open_blob(descriptor)
        status = os.fstat(blob.fileno())
        if self._verified.get(descriptor.digest) == layout_files.identity(status):
            return blob

        def verified() -> None:
            self.mark_verified(descriptor.digest, status)

        try:
            reader = layout_files.VerifyingReader(blob, descriptor.digest, descriptor.size, self.path, verified)
        except DamagedContent:
            blob.close()
            raise
        return cast("BinaryIO", reader)

    def _missing(self, descriptor: Descriptor) -> DamagedContent:
        return DamagedContent(f"blob {descriptor.digest} of layout {self.path} is missing")

    def read(self, descriptor: Descriptor, *, limit: int = MAX_MANIFEST_BYTES) -> bytes:
        """Read and verify a small blob.

        Raises `InvalidInput` if it is larger than ``limit``, and `DamagedContent` if it does not match its descriptor.
        """
        if descriptor.size > limit:
            raise InvalidInput(f"blob {descriptor.digest} of {descriptor.size} bytes exceeds the limit of {limit}")
        with self.open_blob(descriptor) as blob:
            data = blob.read()
        _check_digest(descriptor, Digest.of(data, descriptor.digest.algorithm), self.path)
        return data

    def read_document(self, descriptor: Descriptor) -> ImageManifest | ImageIndex:
        """Read, verify and parse a manifest or an index."""
        return parse(self.read(descriptor), media_type=descriptor.media_type)

    def roots(self) -> tuple[Descriptor, ...]:
        """Return the descriptors in ``index.json``."""
        try:
            data = layout_files.read_file(self.path, "index.json", limit=MAX_INDEX_FILE_BYTES)
        except FileNotFoundError as error:
            raise InvalidInput(f"the layout {self.path} has no index.json") from error
        return parse_roots(data, self.path, any_algorithm=True)

    def root(self) -> Descriptor:
        """Return the only descriptor in ``index.json``; raise `InvalidInput` unless it lists exactly one."""
        roots = self.roots()
        if len(roots) != 1:
            raise InvalidInput(f"layout {self.path} lists {len(roots)} images instead of exactly one")
        return roots[0]

    def set_roots(self, roots: Iterable[Descriptor]) -> None:
        """Replace ``index.json`` atomically."""
        _replace(self.path / "index.json", ImageIndex(manifests=tuple(roots)).encode())

    def walk(self, root: Descriptor) -> Iterator[Descriptor]:
        """Yield every descriptor of the graph below ``root``, children before parents, each digest once.

        ``root`` comes last. ``subject`` is not followed, because it refers to a parent. Raises `InvalidInput` for a
        graph deeper than `MAX_DEPTH`.
        """
        yield from self._walk(root, set(), depth=0)

    def referrers(self, root: Descriptor) -> tuple[Descriptor, ...]:
        """Return the manifests in this layout whose ``subject`` is in the graph below ``root``, sorted by digest.

        ``index.json`` may not list them (a v1 SOCI index of a converted image, a signature), so every small blob that
        may be a manifest is parsed.
        """
        subjects = {node.digest for node in self.walk(root)}
        found = []
        for digest in self._sha256_blobs():
            size, document = self._manifest_at(digest)
            if document is not None and document.subject is not None and document.subject.digest in subjects:
                found.append(Descriptor(media_type=document.media_type, digest=digest, size=size))
        return tuple(found)

    def _sha256_blobs(self) -> list[Digest]:
        """Return the sha256 digests of all blobs, sorted; ignore files with other names."""
        try:
            with layout_files.open_folder(self.path, "blobs", SHA256) as folder:
                names = sorted(os.listdir(folder))  # noqa: PTH208
        except FileNotFoundError:
            return []
        return [Digest(f"{SHA256}:{name}") for name in names if _HEX.match(name)]

    def _manifest_at(self, digest: Digest) -> tuple[int, ImageManifest | ImageIndex | None]:
        with layout_files.open_file(self.path, *layout_files.blob_place(digest)) as blob:
            size = os.fstat(blob.fileno()).st_size
            head = blob.read(64)
            if size > MAX_MANIFEST_BYTES or not head.lstrip().startswith(b"{"):
                return size, None
            data = head + blob.read(MAX_MANIFEST_BYTES)
        try:
            return size, parse(data)
        except InvalidInput:
            return size, None

    def _walk(self, node: Descriptor, seen: set[Digest], *, depth: int) -> Iterator[Descriptor]:
        if node.digest in seen:
            return
        if depth > MAX_DEPTH:
            raise InvalidInput(f"the image index in layout {self.path} is nested deeper than {MAX_DEPTH}")
        seen.add(node.digest)
        if node.media_type in IMAGE_INDEXES | IMAGE_MANIFESTS:
            for child in self.read_document(node).children:
                yield from self._walk(child, seen, depth=depth + 1)
        yield node


def _not_a_layout(path: Path) -> InvalidInput:
    if not path.exists():
        return InvalidInput(f"{path} does not exist", advice=_MAKE_ONE)
    advice = "It must contain the files oci-layout and index.json and the folder blobs."
    if path.is_file():
        advice = "It is a file, but a folder is required: `soci-pipeline convert` creates one from an archive."
    return InvalidInput(f"{path} is not an OCI image layout", advice=advice)


def _check_size(descriptor: Descriptor, size: int, where: Path) -> None:
    if size != descriptor.size:
        raise DamagedContent(f"blob {descriptor.digest} of layout {where} has {size} bytes, not {descriptor.size}")


def _check_digest(descriptor: Descriptor, found: Digest, where: Path) -> None:
    if found != descriptor.digest:
        raise DamagedContent(f"content of {descriptor.digest} in layout {where} has the digest {found}")


def _replace(path: Path, data: bytes) -> None:
    with full_disk_reported(path.parent):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
