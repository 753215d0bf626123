"""Unpack archives of OCI layouts blob by blob, verifying each; other files of the archive are ignored."""

from collections.abc import Iterator
from pathlib import Path

from soci_pipeline.archive.documents import blob_name, is_layout
from soci_pipeline.archive.reader import CHUNK, Archive, open_archive
from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.index_file import MAX_INDEX_FILE_BYTES, parse_roots
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.layout_choice import choose_roots
from soci_pipeline.oci.manifest import MAX_DEPTH
from soci_pipeline.oci.media_types import IMAGE_INDEXES, IMAGE_MANIFESTS
from soci_pipeline.progress import Advance, meter


def unpacked(path: Path, folder: Path, *, ref: str | None = None) -> Layout:
    """Unpack the layout in a tar (gzipped or not) into ``folder``: everything reachable from its ``index.json``.

    With ``ref`` only the image with that name or digest is unpacked.

    Raises `InvalidInput` if the file is not an archive of a layout, `DamagedContent` or `HostileArchive` if it is
    invalid.
    """
    with open_archive(path, scratch=folder.parent) as archive:
        if not is_layout(archive):
            raise InvalidInput(
                f"{path} is not an archive of an OCI layout",
                advice="It needs oci-layout and index.json; `docker buildx build --output type=oci` writes one.",
            )
        size = archive.size("index.json") or 0
        if size > MAX_INDEX_FILE_BYTES:
            raise InvalidInput(f"index.json of {path} has {size} bytes, and at most {MAX_INDEX_FILE_BYTES} are allowed")
        with archive.open("index.json") as file:
            roots = choose_roots(parse_roots(file.read(), path), ref, path)
        layout = Layout.create(folder)
        with meter("unpack") as advance:
            for root in roots:
                _take(archive, root, layout, advance, depth=0)
        layout.set_roots(roots)
    return layout


def _take(archive: Archive, node: Descriptor, layout: Layout, advance: Advance, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"the image index is nested deeper than {MAX_DEPTH}")
    name = blob_name(node.digest)
    if layout.has(node):
        return
    if depth and archive.size(name) is None:
        # An image that was not saved, or a foreign layer. If the blob is needed, a later step reports it.
        return
    with archive.open(name) as blob:
        layout.add_chunks(_counted(iter(lambda: blob.read(CHUNK), b""), advance), node)
    if node.media_type in IMAGE_INDEXES | IMAGE_MANIFESTS:
        for child in layout.read_document(node).children:
            _take(archive, child, layout, advance, depth=depth + 1)


def _counted(chunks: Iterator[bytes], advance: Advance) -> Iterator[bytes]:
    for chunk in chunks:
        advance(len(chunk))
        yield chunk
