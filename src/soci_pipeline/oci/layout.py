"""OCI image layouts on disk (image-spec, image-layout.md): blobs by digest, each verified while it is written.

A blob appears under its name only when it is whole: temp file in the same file system, verify, rename. Several
processes may write the same layout.

A layout may come from somebody else. Its files are opened without following links, and only regular files inside the
folder are read (`layout_files`). `Layout.take_over` and `Layout.open_verified` hash a blob that this object has not
verified yet; what was verified is remembered for as long as the file does not change.
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
    "Name the folder of an OCI layout: `docker buildx build --output type=oci,tar=false,dest=FOLDER` makes one, and so "
    "does `soci-pipeline convert` of an archive."
)


class Layout:
    """An OCI image layout in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._verified: dict[Digest, layout_files.Identity] = {}

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make an empty layout, or open the one that is there."""
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

        Raises `InvalidInput` where the folder is none, `HostileArchive` where ``oci-layout`` is not a regular file.
        """
        try:
            data = layout_files.read_file(path, "oci-layout", limit=_MAX_LAYOUT_FILE_BYTES)
            version = json.loads(data).get("imageLayoutVersion")
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise _no_layout(path) from error
        if version != "1.0.0":
            raise InvalidInput(f"{path} is an OCI image layout of version {version!r}; 1.0.0 is the one that is known")
        return cls(path)

    def blob_path(self, digest: Digest) -> Path:
        """Where a blob lies, or would lie."""
        return self.path.joinpath(*layout_files.blob_place(digest))

    def has(self, descriptor: Descriptor) -> bool:
        """Whether a blob of that digest and size is there; raises `HostileArchive` for a link or a special file.

        The content is not read: a blob of a layout from elsewhere may still have another digest.
        """
        status = layout_files.stat_file(self.path, *layout_files.blob_place(descriptor.digest))
        return status is not None and status.st_size == descriptor.size

    def is_verified(self, descriptor: Descriptor) -> bool:
        """Whether this object has hashed the blob, and its file has not changed since."""
        status = layout_files.stat_file(self.path, *layout_files.blob_place(descriptor.digest))
        return status is not None and self._verified.get(descriptor.digest) == layout_files.identity(status)

    def mark_verified(self, digest: Digest, status: os.stat_result) -> None:
        """Remember that the whole content of the file with that status has the digest."""
        self._verified[digest] = layout_files.identity(status)

    def writer(self, *, expected: Digest | None = None, size: int | None = None) -> BlobWriter:
        """A writer for one blob; see `BlobWriter`."""
        return BlobWriter(self.path, self.mark_verified, expected=expected, size=size)

    def add_bytes(self, data: bytes, media_type: str) -> Descriptor:
        """Store some bytes and describe them by their sha256 digest."""
        descriptor = Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))
        if not self.has(descriptor):
            with self.writer(expected=descriptor.digest, size=len(data)) as blob:
                blob.write(data)
        return descriptor

    def add_chunks(self, chunks: Iterable[bytes], descriptor: Descriptor) -> Descriptor:
        """Store a blob whose descriptor is known, from a stream of pieces; skipped where it is there already."""
        if not self.has(descriptor):
            with self.writer(expected=descriptor.digest, size=descriptor.size) as blob:
                for chunk in chunks:
                    blob.write(chunk)
        return descriptor

    def add_document(self, document: ImageManifest | ImageIndex) -> Descriptor:
        """Store a manifest or an index."""
        return self.add_bytes(document.encode(), document.media_type)

    def link_from(self, source: "Layout", descriptor: Descriptor) -> None:
        """Take a blob over from a layout that this program has written, without reading it.

        A hard link where both lie on one file system, else a copy, which is verified.
        """
        self._take(source, descriptor, verify=False)

    def take_over(self, source: "Layout", descriptor: Descriptor) -> None:
        """As `link_from`, from a layout of any origin: the content is hashed unless ``source`` has verified it.

        Raises `DamagedContent` where it does not have its digest; it is not taken over then.
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
            # Another file system, one without hard links, or no such file.
            with source.open_blob(descriptor) as blob:
                self.add_chunks(iter(lambda: blob.read(1 << 20), b""), descriptor)
            return
        try:
            self._put_link(link, source, descriptor, verify=verify)
        finally:
            link.unlink(missing_ok=True)

    def _put_link(self, link: Path, source: "Layout", descriptor: Descriptor, *, verify: bool) -> None:
        """Give a link its name; what is verified is the file that was linked, whatever ``source`` holds by now."""
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
        """Open a blob for reading; raises `DamagedContent` where it is missing or of another size.

        Raises `HostileArchive` where it is not a regular file inside the layout. The content is not hashed.
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
        """As `open_blob`; reading the last bytes raises `DamagedContent` where the content has another digest."""
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
        """Read and verify a small blob; raises `DamagedContent` where it is not what its descriptor says."""
        if descriptor.size > limit:
            raise InvalidInput(f"blob {descriptor.digest} of {descriptor.size} bytes exceeds the limit of {limit}")
        with self.open_blob(descriptor) as blob:
            data = blob.read()
        _check_digest(descriptor, Digest.of(data, descriptor.digest.algorithm), self.path)
        return data

    def read_document(self, descriptor: Descriptor) -> ImageManifest | ImageIndex:
        """Read a manifest or an index."""
        return parse(self.read(descriptor), media_type=descriptor.media_type)

    def roots(self) -> tuple[Descriptor, ...]:
        """The descriptors of ``index.json``."""
        try:
            data = layout_files.read_file(self.path, "index.json", limit=MAX_INDEX_FILE_BYTES)
        except FileNotFoundError as error:
            raise InvalidInput(f"the layout {self.path} has no index.json") from error
        return parse_roots(data, self.path, any_algorithm=True)

    def root(self) -> Descriptor:
        """The one descriptor of ``index.json``; raises `InvalidInput` where it lists none or several."""
        roots = self.roots()
        if len(roots) != 1:
            raise InvalidInput(f"layout {self.path} lists {len(roots)} images, and exactly one was expected")
        return roots[0]

    def set_roots(self, roots: Iterable[Descriptor]) -> None:
        """Replace ``index.json`` in one step."""
        _replace(self.path / "index.json", ImageIndex(manifests=tuple(roots)).encode())

    def walk(self, root: Descriptor) -> Iterator[Descriptor]:
        """Every descriptor of the graph below ``root``, children before parents, each digest once; ``root`` is last.

        A ``subject`` is not followed: it points up. Raises `InvalidInput` for graphs deeper than 8.
        """
        yield from self._walk(root, set(), depth=0)

    def referrers(self, root: Descriptor) -> tuple[Descriptor, ...]:
        """The manifests in this layout whose ``subject`` is part of the graph below ``root``, sorted by digest.

        ``index.json`` need not list them (a v1 SOCI index of a converted image, a signature), so all small blobs that
        may be a manifest are looked at.
        """
        subjects = {node.digest for node in self.walk(root)}
        found = []
        for digest in self._sha256_blobs():
            size, document = self._manifest_at(digest)
            if document is not None and document.subject is not None and document.subject.digest in subjects:
                found.append(Descriptor(media_type=document.media_type, digest=digest, size=size))
        return tuple(found)

    def _sha256_blobs(self) -> list[Digest]:
        """The digests by which blobs are named, sorted; other names in the folder are not blobs."""
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


def _no_layout(path: Path) -> InvalidInput:
    if not path.exists():
        return InvalidInput(f"there is nothing at {path}", advice=_MAKE_ONE)
    advice = "It needs the files oci-layout and index.json and the folder blobs."
    if path.is_file():
        advice = "It is a file, and a folder is wanted: `soci-pipeline convert` makes one of an archive."
    return InvalidInput(f"{path} is not an OCI image layout", advice=advice)


def _check_size(descriptor: Descriptor, size: int, where: Path) -> None:
    if size != descriptor.size:
        raise DamagedContent(f"blob {descriptor.digest} of layout {where} has {size} bytes, not {descriptor.size}")


def _check_digest(descriptor: Descriptor, found: Digest, where: Path) -> None:
    if found != descriptor.digest:
        raise DamagedContent(f"content of {descriptor.digest} in layout {where} hashes to {found}")


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
