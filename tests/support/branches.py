"""Results of branches, created in code: images of several platforms, SOCI indexes and attestations in one layout."""

from collections.abc import Sequence

from soci_pipeline.oci.annotations import IMAGE_LAYER_DIGEST, IMAGE_MANIFEST_DIGEST, SOCI_INDEX_DIGEST
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest, parse_image_manifest
from soci_pipeline.oci.media_types import SOCI_INDEX_V1, SOCI_INDEX_V2, SOCI_LAYER
from soci_pipeline.oci.platform import Platform
from soci_pipeline.soci.index.records import IndexVersion, PlatformImage
from tests.support.images import Layer, add_attestation, add_image


def soci_index(layout: Layout, image: Descriptor, kind: str, *, subject: bool = False) -> Descriptor:
    """Store a SOCI index whose zTOCs have the right names and dummy content."""
    manifest = parse_image_manifest(layout.read(image))
    ztocs = [
        layout.add_bytes(b"ztoc of " + layer.digest.encode(), SOCI_LAYER).annotated(
            annotations={IMAGE_LAYER_DIGEST: str(layer.digest)}
        )
        for layer in manifest.layers
    ]
    index = ImageManifest(
        config=layout.add_bytes(b"{}", kind), layers=tuple(ztocs), subject=image.plain if subject else None
    )
    return layout.add_document(index)


def branch_v2(
    layout: Layout, platform: Platform, *, attested: bool = False, layers: Sequence[Layer] | None = None
) -> PlatformImage:
    """Store an image and its v2 SOCI index, which refer to each other."""
    plain = add_image(layout, platform, layers)
    index = soci_index(layout, plain, SOCI_INDEX_V2)
    manifest = parse_image_manifest(layout.read(plain)).replaced(annotations={SOCI_INDEX_DIGEST: str(index.digest)})
    image = layout.add_document(manifest).annotated(
        platform=platform, annotations={SOCI_INDEX_DIGEST: str(index.digest)}
    )
    return PlatformImage(
        platform=platform,
        manifest=image,
        soci_index=index.annotated(
            platform=platform,
            artifact_type=SOCI_INDEX_V2,
            annotations={IMAGE_MANIFEST_DIGEST: str(image.digest)},
        ),
        attestations=(add_attestation(layout, image),) if attested else (),
    )


def branch_v1(layout: Layout, platform: Platform) -> PlatformImage:
    """Store an image with a v1 SOCI index as its referrer."""
    image = add_image(layout, platform)
    return PlatformImage(
        platform=platform,
        manifest=image,
        soci_index=soci_index(layout, image, SOCI_INDEX_V1, subject=True),
        soci_version=IndexVersion.V1,
    )


def branch_plain(layout: Layout, platform: Platform) -> PlatformImage:
    """Store an image without any layer that qualifies for a zTOC."""
    return PlatformImage(platform=platform, manifest=add_image(layout, platform))
