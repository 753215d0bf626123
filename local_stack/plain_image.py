"""Build images from files without an engine: each layer has tar members in a fixed order with fixed times.

The same files give the same digest, and neither root nor emulation is needed.
"""

import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from soci_pipeline.errors import DamagedContent
from soci_pipeline.oci import canonical_json
from soci_pipeline.oci.blob_writer import BlobWriter
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest
from soci_pipeline.oci.media_types import OCI_CONFIG, OCI_LAYER_GZIP
from soci_pipeline.oci.platform import Platform

Member = tuple[tarfile.TarInfo, bytes]
"""A tar header and, for a regular file, its content."""

_COMPRESSION_LEVEL = 6
_GZIP = 31


@dataclass(frozen=True, slots=True)
class PlainLayer:
    """A compressed layer in a layout, and the digest of its tar."""

    descriptor: Descriptor
    diff_id: str
    created_by: str


def add_layer(layout: Layout, members: Iterable[Member], *, created_by: str) -> PlainLayer:
    """Store a layer of the members, sorted by name; hard links come last, since they must follow their target."""
    digest = hashlib.sha256()
    packer = zlib.compressobj(_COMPRESSION_LEVEL, wbits=_GZIP)
    order = sorted(members, key=lambda member: (member[0].islnk(), member[0].name))
    with layout.writer() as blob:
        with tarfile.open(fileobj=_Packed(blob, packer, digest), mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for header, content in order:
                archive.addfile(header, io.BytesIO(content) if header.isreg() else None)
        blob.write(packer.flush())
    if blob.digest is None:
        raise DamagedContent("a layer was not finished")
    descriptor = Descriptor(media_type=OCI_LAYER_GZIP, digest=blob.digest, size=blob.written)
    return PlainLayer(descriptor, f"sha256:{digest.hexdigest()}", created_by)


def add_image(
    layout: Layout, layers: Sequence[PlainLayer], platform: Platform, *, created: int, config: Mapping[str, Any]
) -> Descriptor:
    """Store config and manifest of an image; return its descriptor with the platform. ``created`` is Unix seconds."""
    moment = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    description = {
        "architecture": platform.architecture,
        "os": platform.os,
        "created": moment,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": moment, "created_by": layer.created_by} for layer in layers],
    }
    stored = layout.add_bytes(canonical_json.encode(description), OCI_CONFIG)
    manifest = ImageManifest(config=stored, layers=tuple(layer.descriptor for layer in layers))
    return layout.add_document(manifest).annotated(platform=platform)


def file_member(name: str, content: bytes, *, mode: int = 0o644, moment: int = 0) -> Member:
    """Return a regular file owned by root; ``moment`` is Unix seconds."""
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.mtime = len(content), mode, moment
    return header, content


def link_member(name: str, target: str, *, moment: int = 0) -> Member:
    """Return a symbolic link."""
    header = tarfile.TarInfo(name)
    header.type, header.linkname, header.mode, header.mtime = tarfile.SYMTYPE, target, 0o777, moment
    return header, b""


class _Packed(io.RawIOBase):
    """Hashes and compresses a tar stream, and passes it on."""

    def __init__(self, blob: BlobWriter, packer: "zlib._Compress", digest: "hashlib._Hash") -> None:
        self._blob = blob
        self._packer = packer
        self._digest = digest

    def write(self, data: Any) -> int:
        self._digest.update(data)
        packed = self._packer.compress(data)
        if packed:
            self._blob.write(packed)
        return len(data)
