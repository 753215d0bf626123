"""v2 with the reference's own converter: ``soci convert --standalone`` on a layout, without containerd."""

from collections.abc import Mapping
from pathlib import Path

from soci_pipeline.containerd.soci_command import MINIMUM_STANDALONE, find_soci
from soci_pipeline.containerd.source_images import (
    SourceImage,
    index_of,
    layer_records,
    source_images,
    take_over,
    ztocs_by_layer,
)
from soci_pipeline.errors import DamagedContent, InvalidInput
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import SOCI_INDEX_V2
from soci_pipeline.publish.records import IndexVersion, PlatformImage, SociOptions
from soci_pipeline.soci.convert import Conversion

_INDEX_DIGEST = "com.amazon.soci.index-digest"


def convert_standalone(
    layout: Layout, destination: Path, *, options: SociOptions, env: Mapping[str, str], folder: Path
) -> Conversion:
    """Convert; the result is verified into a layout at ``destination``. ``folder`` takes what the program makes.

    Raises `InvalidInput` for an image with attestations: the program strips what ties them to their image.
    """
    images, attestations = source_images(layout)
    if attestations:
        raise InvalidInput(
            "`soci convert` would break the attestations of this image",
            advice="Choose the toolchain `native`, or build without attestations.",
        )
    soci = find_soci(env, folder / "store", minimum=MINIMUM_STANDALONE)
    made = folder / "converted"
    if soci.convert(layout.path, made, options):
        return _verified(Layout.open(made), layout, destination, options)
    return _as_it_is(images, layout, destination, options)


def _as_it_is(images: tuple[SourceImage, ...], layout: Layout, destination: Path, options: SociOptions) -> Conversion:
    result = Layout.create(destination)
    take_over(layout, [image.descriptor for image in images], result)
    root = result.add_document(index_of([image.descriptor for image in images], ()))
    result.set_roots([root])
    records = tuple(
        PlatformImage(
            platform=image.platform,
            manifest=image.descriptor,
            soci_version=IndexVersion.V2,
            layers=layer_records(image.manifest.layers, {}, options),
        )
        for image in images
    )
    return Conversion(layout=result, root=root, images=records)


def _verified(made: Layout, source: Layout, destination: Path, options: SociOptions) -> Conversion:
    root = made.root()
    document = made.read_document(root)
    if not isinstance(document, ImageIndex):
        raise DamagedContent("`soci convert` left no image index")
    result = Layout.create(destination)
    for node in made.walk(root):
        if source.has(node):
            # Verified when it was imported.
            result.link_from(source, node)
        else:
            with made.open_blob(node) as blob:
                result.add_chunks(iter(lambda blob=blob: blob.read(1 << 20), b""), node)  # type: ignore[misc]
    plain = root.plain
    result.set_roots([plain])
    indexes = {item.digest: item for item in document.manifests if item.artifact_type == SOCI_INDEX_V2}
    images, _ = source_images(result)
    records = []
    for image in images:
        soci_index = indexes.get(_named(image.manifest) or image.descriptor.digest)
        records.append(
            PlatformImage(
                platform=image.platform,
                manifest=image.descriptor,
                soci_index=soci_index,
                soci_version=IndexVersion.V2,
                layers=layer_records(image.manifest.layers, _ztocs(result, soci_index), options),
            )
        )
    return Conversion(layout=result, root=plain, images=tuple(records))


def _named(manifest: ImageManifest) -> Digest | None:
    name = manifest.annotations.get(_INDEX_DIGEST)
    return None if name is None else Digest(name)


def _ztocs(layout: Layout, soci_index: Descriptor | None) -> dict[Digest, Digest]:
    if soci_index is None:
        return {}
    document = layout.read_document(soci_index)
    return ztocs_by_layer(document) if isinstance(document, ImageManifest) else {}
