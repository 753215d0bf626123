"""Read the JSON documents of an image archive, with a size limit and verification before parsing."""

import json
from typing import Any

from soci_pipeline.archive.reader import Archive
from soci_pipeline.errors import DamagedContent, HostileArchive, InvalidInput
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout_files import blob_place
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES, ImageIndex, ImageManifest, parse, parse_image_index
from soci_pipeline.oci.media_types import OCI_INDEX


def is_layout(archive: Archive) -> bool:
    """Return whether the archive contains an OCI layout."""
    return archive.size("index.json") is not None and archive.size("oci-layout") is not None


def read_blob(archive: Archive, descriptor: Descriptor) -> bytes:
    """Read and verify a small blob; raise `HostileArchive` if it is too large, `DamagedContent` if it is wrong."""
    data = read_small(archive, blob_name(descriptor.digest))
    if len(data) != descriptor.size or Digest.of(data) != descriptor.digest:
        raise DamagedContent(f"blob {descriptor.digest} of the archive does not match its descriptor")
    return data


def read_document(archive: Archive, descriptor: Descriptor) -> tuple[ImageManifest | ImageIndex, bytes]:
    """Return a manifest or an index of the archive, and its exact bytes."""
    data = read_blob(archive, descriptor)
    _decoded(data)
    try:
        return parse(data, media_type=descriptor.media_type), data
    except InvalidInput as error:
        raise _unusable(error) from error


def blob_name(digest: Digest) -> str:
    """Return the path of a blob in a layout."""
    return "/".join(blob_place(digest))


def read_index(archive: Archive) -> ImageIndex:
    """Read the ``index.json`` of an OCI layout."""
    fields = read_json(archive, "index.json")
    if not isinstance(fields, dict):
        raise DamagedContent("index.json of the archive is not an object")
    # Older layouts omit ``mediaType`` here and some have a wrong one, so ignore it.
    fields["mediaType"] = OCI_INDEX
    try:
        return parse_image_index(json.dumps(fields).encode(), media_type=OCI_INDEX)
    except InvalidInput as error:
        raise _unusable(error) from error


def read_json(archive: Archive, name: str) -> Any:
    """Read a small JSON file of the archive."""
    return _decoded(read_small(archive, name))


def read_small(archive: Archive, name: str) -> bytes:
    """Read a small file; raise `HostileArchive` if it is too large, `DamagedContent` if it is missing."""
    size = archive.size(name)
    if size is None:
        raise DamagedContent(f"the archive does not contain {name[:200]!r}")
    if size > MAX_MANIFEST_BYTES:
        raise HostileArchive(f"{name[:200]!r} of the archive has {size} bytes; {MAX_MANIFEST_BYTES} is the limit")
    with archive.open(name) as file:
        return file.read(MAX_MANIFEST_BYTES)


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except RecursionError as error:
        raise HostileArchive("a document of the archive is nested too deeply") from error
    except ValueError as error:
        raise DamagedContent(f"a document of the archive is not valid JSON: {error!s:.200}") from error


def _unusable(error: InvalidInput) -> DamagedContent:
    return DamagedContent(f"a document of the archive cannot be used: {error.reason}")
