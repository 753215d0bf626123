"""Import: turn a builder's output into a verified OCI layout with one image.

Every blob is hashed while it is written, and compared with the digest and size stated in the archive. No file name
comes from the archive: blobs are named by their digests, so no name can escape the folder.
"""

from dataclasses import dataclass, field
from pathlib import Path

from soci_pipeline.archive.documents import blob_name, read_document
from soci_pipeline.archive.image import FoundImage, FoundLayer, find_image
from soci_pipeline.archive.reader import CHUNK, Archive, ArchiveLimits, open_archive
from soci_pipeline.builders.compress import compress as gzip_layer
from soci_pipeline.builders.compress import inflated_digest
from soci_pipeline.errors import DamagedContent
from soci_pipeline.log import logger
from soci_pipeline.oci.blob_writer import BlobWriter
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_ZSTD,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    Compression,
    is_foreign_layer,
    layer_compression,
)
from soci_pipeline.oci.platform import Platform
from soci_pipeline.progress import Advance, MeasuredReader, meter
from soci_pipeline.soci.index.attestations import follow_all

_OCI_LAYERS = {
    DOCKER_LAYER: OCI_LAYER,
    DOCKER_LAYER_GZIP: OCI_LAYER_GZIP,
    DOCKER_LAYER_ZSTD: OCI_LAYER_ZSTD,
}


def import_image(
    source: Path,
    destination: Path,
    *,
    platform: Platform,
    ref: str | None = None,
    compress: bool = True,
    check_diff_ids: bool = False,
    limits: ArchiveLimits | None = None,
) -> Layout:
    """Import the image of one platform from an archive or a folder into the layout at ``destination``.

    ``source`` is an OCI archive, an OCI layout or a Docker archive; a tar may be gzipped. ``ref`` selects one of
    several images in it, by name or digest. The layout's root is the image manifest, or an image index of the image and
    its attestations if it has any. Docker media types of manifests become OCI types; a manifest that needs no change
    keeps its bytes and digest, and attestations of a changed one are adapted (`attestations.follow_all`). With
    ``compress``, uncompressed layers are gzipped (see `compress`); all others are kept byte for byte. The diff id of
    every layer compressed here is verified; ``check_diff_ids`` also inflates and verifies gzipped layers, which is
    worth the time for archives from elsewhere.

    Raises `PlatformMismatch`, `InvalidInput`, `HostileArchive`, `DamagedContent` or `DiskFull`. The roots of the layout
    are set last, so that a failed import is never mistaken for an image.
    """
    bounds = limits or ArchiveLimits()
    destination.parent.mkdir(parents=True, exist_ok=True)
    with open_archive(source, scratch=destination.parent, limits=bounds) as archive:
        found = find_image(archive, platform, ref=ref)
        layout = Layout.create(destination)
        total = sum(archive.size(name) or 0 for name in {layer.name for layer in found.layers})
        with meter("import", total) as advance:
            job = _Import(archive, layout, advance, compress=compress, check_diff_ids=check_diff_ids, limits=bounds)
            layout.set_roots([job.image(found)])
    return layout


@dataclass
class _Import:
    archive: Archive
    layout: Layout
    advance: Advance
    compress: bool
    check_diff_ids: bool
    limits: ArchiveLimits
    done: dict[str, Descriptor] = field(default_factory=dict)

    def image(self, found: FoundImage) -> Descriptor:
        config = self.layout.add_bytes(found.config, OCI_CONFIG)
        layers = tuple(self._layer(layer, diff_id) for layer, diff_id in zip(found.layers, found.diff_ids, strict=True))
        manifest = self._manifest(found, config, layers)
        image = manifest.annotated(platform=found.platform)
        attestations = [item for item in found.attestations if self._is_held(item)]
        if found.manifest is None or not attestations:
            return image
        for item in attestations:
            self._take_attestation(item)
        renamed = {Digest.of(found.manifest_bytes): manifest}
        followed = follow_all(attestations, renamed, self.layout, self.layout)
        return self.layout.add_document(ImageIndex(manifests=(image, *followed)))

    def _manifest(self, found: FoundImage, config: Descriptor, layers: tuple[Descriptor, ...]) -> Descriptor:
        original = found.manifest
        if original is None:
            return self.layout.add_document(ImageManifest(config=config, layers=layers))
        # Field by field, because a config may have annotations that must be kept.
        config = original.config.annotated(media_type=OCI_CONFIG)
        changed = original.replaced(media_type=ImageManifest(config=config).media_type, config=config, layers=layers)
        if changed == original:
            return self.layout.add_bytes(found.manifest_bytes, original.media_type)
        return self.layout.add_document(changed)

    def _layer(self, layer: FoundLayer, diff_id: Digest) -> Descriptor:
        if layer.name not in self.done:
            self.done[layer.name] = self._existing_layer(layer, diff_id)
        taken = self.done[layer.name]
        return taken if layer.descriptor is None else layer.descriptor.annotated(**_identity(taken))

    def _existing_layer(self, layer: FoundLayer, diff_id: Digest) -> Descriptor:
        media_type = _OCI_LAYERS.get(layer.media_type, layer.media_type)
        size = self.archive.size(layer.name)
        if layer.descriptor is not None:
            if size is None and is_foreign_layer(media_type):
                return layer.descriptor
            _check_size(layer.descriptor, size)
        compression = layer_compression(media_type)
        if compression is Compression.NONE and self.compress:
            return self._compressed(layer, diff_id)
        if compression is Compression.GZIP and (self.check_diff_ids or layer.descriptor is None):
            with self.archive.open(layer.name) as file:
                _check_diff_id(inflated_digest(file, limits=self.limits, what=layer.name), diff_id, layer)
        copied = self._copied(layer.name, layer.descriptor, media_type)
        if compression is Compression.NONE:
            _check_diff_id(copied.digest, diff_id, layer)
        return copied

    def _compressed(self, layer: FoundLayer, diff_id: Digest) -> Descriptor:
        with self.archive.open(layer.name) as file, self.layout.writer() as blob:
            _check_diff_id(gzip_layer(MeasuredReader(file, self.advance), blob), diff_id, layer)
        return _written(blob.digest, blob.written, OCI_LAYER_GZIP)

    def _copied(self, name: str, descriptor: Descriptor | None, media_type: str) -> Descriptor:
        if descriptor is not None and self.layout.has(descriptor):
            return descriptor.plain.annotated(media_type=media_type)
        stated = self.layout.writer() if descriptor is None else self._verifying_writer(descriptor)
        with self.archive.open(name) as file, stated as blob:
            while chunk := file.read(CHUNK):
                blob.write(chunk)
                self.advance(len(chunk))
        return _written(blob.digest, blob.written, media_type)

    def _verifying_writer(self, descriptor: Descriptor) -> BlobWriter:
        return self.layout.writer(expected=descriptor.digest, size=descriptor.size)

    def _is_held(self, item: Descriptor) -> bool:
        """Whether the archive contains an attestation completely; one that is incomplete is left out."""
        blobs = [item]
        if self.archive.size(blob_name(item.digest)) is not None:
            blobs += read_document(self.archive, item)[0].children
        missing = [blob.digest for blob in blobs if self.archive.size(blob_name(blob.digest)) is None]
        if missing:
            logger().warning("attestation %s is skipped: the archive does not contain blob %s", item.digest, missing[0])
        return not missing

    def _take_attestation(self, item: Descriptor) -> None:
        document, data = read_document(self.archive, item)
        for child in document.children:
            _check_size(child, self.archive.size(blob_name(child.digest)))
            self._copied(blob_name(child.digest), child, child.media_type)
        self.layout.add_bytes(data, item.media_type)


def _identity(taken: Descriptor) -> dict[str, object]:
    return {"media_type": taken.media_type, "digest": taken.digest, "size": taken.size}


def _written(digest: Digest | None, size: int, media_type: str) -> Descriptor:
    if digest is None:
        raise AssertionError("a blob that was written has a digest")
    return Descriptor(media_type=media_type, digest=digest, size=size)


def _check_size(descriptor: Descriptor, size: int | None) -> None:
    if size is None:
        raise DamagedContent(f"the archive does not contain blob {descriptor.digest}")
    if size != descriptor.size:
        raise DamagedContent(f"blob {descriptor.digest} of the archive has {size} bytes, not {descriptor.size}")


def _check_diff_id(actual: Digest, stated: Digest, layer: FoundLayer) -> None:
    if actual != stated:
        raise DamagedContent(f"layer {layer.name} has the digest {actual}, but the image config says {stated}")
