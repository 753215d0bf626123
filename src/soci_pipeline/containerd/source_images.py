"""Read the images of an imported layout for the containerd toolchain, and build the records of its results."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from soci_pipeline.errors import InvalidInput, ToolFailed
from soci_pipeline.oci.annotations import IMAGE_LAYER_DIGEST, REFERENCE_DIGEST, is_attestation
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.image_config import platform_of_config
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import DOCKER_CONFIG, IMAGE_MANIFESTS, OCI_CONFIG
from soci_pipeline.oci.platform import Platform
from soci_pipeline.soci.index.layers import reason_in
from soci_pipeline.soci.index.records import LayerRecord, SociOptions
from soci_pipeline.soci.reasons import Reason


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image; its descriptor contains the platform of its config."""

    descriptor: Descriptor
    manifest: ImageManifest
    platform: Platform


def source_images(layout: Layout) -> tuple[tuple[SourceImage, ...], tuple[Descriptor, ...]]:
    """Return the images and the attestations of a layout; raise `InvalidInput` if it has no image."""
    root = layout.root()
    document = layout.read_document(root)
    listed = document.manifests if isinstance(document, ImageIndex) else (root,)
    images = images_of(layout, listed)
    if not images:
        raise InvalidInput(f"the layout {layout.path} contains no image")
    return images, tuple(item for item in listed if is_attestation(item))


def images_of(layout: Layout, listed: Iterable[Descriptor]) -> tuple[SourceImage, ...]:
    """Return the images among the entries of an image index; ignore all other entries."""
    images: list[SourceImage] = []
    for item in listed:
        if item.media_type not in IMAGE_MANIFESTS or is_attestation(item):
            continue
        manifest = layout.read_document(item)
        if isinstance(manifest, ImageManifest) and manifest.config.media_type in (OCI_CONFIG, DOCKER_CONFIG):
            platform = platform_of_config(layout.read(manifest.config))
            images.append(SourceImage(item.annotated(platform=platform), manifest, platform))
    return tuple(images)


def take_over(source: Layout, parts: Iterable[Descriptor], target: Layout) -> None:
    """Copy the complete graphs below ``parts`` to ``target``; foreign layers may be missing."""
    for part in parts:
        for node in source.walk(part):
            if source.has(node) or not node.may_be_foreign:
                target.take_over(source, node)


def attestations_of(image: SourceImage, attestations: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """Return the attestations that refer to an image."""
    digest = str(image.descriptor.digest)
    return tuple(item for item in attestations if item.annotations.get(REFERENCE_DIGEST) == digest)


def index_of(images: Sequence[Descriptor], others: Sequence[Descriptor]) -> ImageIndex:
    """Build the image index of a result: the images, then other manifests such as attestations."""
    return ImageIndex(manifests=(*images, *others))


def layer_records(
    layout: Layout, layers: Sequence[Descriptor], ztocs: Mapping[Digest, Digest], options: SociOptions
) -> tuple[LayerRecord, ...]:
    """Return one record for each layer of an image in ``layout``, with its zTOC or the reason why it has none."""
    return tuple(
        LayerRecord(
            digest=layer.digest,
            size=layer.size,
            media_type=layer.media_type,
            ztoc=ztocs.get(layer.digest),
            reason=None if layer.digest in ztocs else _reason(layout, layer, options),
        )
        for layer in layers
    )


def ztocs_by_layer(soci_index: ImageManifest) -> dict[Digest, Digest]:
    """Return the zTOC of each layer in a SOCI index."""
    annotated = [layer for layer in soci_index.layers if IMAGE_LAYER_DIGEST in layer.annotations]
    return {Digest(layer.annotations[IMAGE_LAYER_DIGEST]): layer.digest for layer in annotated}


def _reason(layout: Layout, layer: Descriptor, options: SociOptions) -> Reason:
    """Determine why the programs skipped a layer, since they report it only in log messages.

    Raises `ToolFailed` if the reason is unknown.
    """
    reason = reason_in(layout, layer, options.min_layer_size)
    if reason is not None:
        return reason
    raise ToolFailed(
        f"soci left layer {layer.digest} without a zTOC for an unknown reason",
        advice="Choose the toolchain `native`, which records a reason for each layer.",
    )
