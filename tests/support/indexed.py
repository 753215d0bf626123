"""Images with real zTOCs, and with modified zTOCs that have correct digests."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from soci_pipeline.oci.annotations import (
    IMAGE_LAYER_DIGEST,
    IMAGE_LAYER_MEDIA_TYPE,
    IMAGE_MANIFEST_DIGEST,
    SOCI_INDEX_DIGEST,
    SPAN_SIZE,
)
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest, parse_image_manifest
from soci_pipeline.oci.media_types import SOCI_INDEX_V1, SOCI_INDEX_V2, SOCI_LAYER
from soci_pipeline.oci.platform import Platform
from soci_pipeline.soci.gzip.checkpoints import Checkpoint, GzipCheckpoints
from soci_pipeline.soci.index.records import IndexVersion, PlatformImage
from soci_pipeline.soci.tar.entries import Entry
from soci_pipeline.soci.ztoc.build import build_ztoc
from soci_pipeline.soci.ztoc.codec import Ztoc, decode, encode
from tests.support.images import Layer, add_image, gzip_layer, tar_layer
from tests.support.tars import noise, text

SPAN = 64 << 10
Tamper = Callable[[Ztoc], Ztoc]


def some_layers() -> list[Layer]:
    """Return a gzip layer of several spans with small files and a large one, and a plain tar."""
    files = {f"etc/conf.d/{number}": text(700 * number, seed=number) for number in range(40)}
    return [
        gzip_layer(files | {"usr/lib/large": noise(300_000), "usr/bin/app": b"#!/bin/sh\n"}),
        tar_layer({f"srv/{number}": text(5000 * number, seed=number) for number in range(12)}),
    ]


def indexed(
    layout: Layout,
    platform: Platform,
    layers: Sequence[Layer] | None = None,
    *,
    version: IndexVersion = IndexVersion.V2,
    tamper: Tamper | None = None,
    span_size: int = SPAN,
    indexed_layers: Sequence[int] | None = None,
) -> PlatformImage:
    """Store an image with zTOCs; ``tamper`` changes the first one before it is stored under its new digest."""
    chosen = some_layers() if layers is None else list(layers)
    plain = add_image(layout, platform, chosen)
    manifest = parse_image_manifest(layout.read(plain))
    which = range(len(chosen)) if indexed_layers is None else indexed_layers
    ztocs = []
    for number in which:
        descriptor = manifest.layers[number]
        data = build_ztoc(layout.blob_path(descriptor.digest), descriptor.media_type, span_size=span_size).data
        if tamper is not None and number == which[0]:
            data = encode(tamper(decode(data)))
        annotations = {
            IMAGE_LAYER_DIGEST: str(descriptor.digest),
            IMAGE_LAYER_MEDIA_TYPE: descriptor.media_type,
            SPAN_SIZE: str(span_size),
        }
        ztocs.append(layout.add_bytes(data, SOCI_LAYER).annotated(annotations=annotations))
    if version is IndexVersion.V1:
        return _v1(layout, plain, ztocs)
    config = layout.add_bytes(b"{}", SOCI_INDEX_V2)
    index = layout.add_document(ImageManifest(config=config, layers=tuple(ztocs)))
    named = {SOCI_INDEX_DIGEST: str(index.digest)}
    image = layout.add_document(manifest.replaced(annotations=named))
    return PlatformImage(
        platform=platform,
        manifest=image.annotated(platform=platform, annotations=named),
        soci_index=index.annotated(
            platform=platform, artifact_type=SOCI_INDEX_V2, annotations={IMAGE_MANIFEST_DIGEST: str(image.digest)}
        ),
    )


def _v1(layout: Layout, image: Descriptor, ztocs: Sequence[Descriptor]) -> PlatformImage:
    config = layout.add_bytes(b"{}", SOCI_INDEX_V1)
    index = layout.add_document(ImageManifest(config=config, layers=tuple(ztocs), subject=image.plain))
    assert image.platform is not None
    return PlatformImage(platform=image.platform, manifest=image, soci_index=index, soci_version=IndexVersion.V1)


def with_entry(number: int, change: Callable[[Entry], Entry]) -> Tamper:
    """Change one entry of the table of contents."""

    def tamper(ztoc: Ztoc) -> Ztoc:
        entries = list(ztoc.entries)
        entries[number] = change(entries[number])
        return replace(ztoc, entries=tuple(entries))

    return tamper


def with_checkpoint(number: int, change: Callable[[Checkpoint], Checkpoint]) -> Tamper:
    """Change one checkpoint of a gzip layer."""

    def tamper(ztoc: Ztoc) -> Ztoc:
        assert isinstance(ztoc.checkpoints, GzipCheckpoints)
        points = list(ztoc.checkpoints.points)
        points[number] = change(points[number])
        return replace(ztoc, checkpoints=GzipCheckpoints(ztoc.span_size, points))

    return tamper
