"""Index v2 with the reference's converter, ``soci convert --standalone``, which needs no containerd."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from soci_pipeline.containerd.soci_command import MINIMUM_STANDALONE, find_soci
from soci_pipeline.containerd.source_images import (
    SourceImage,
    attestations_of,
    images_of,
    index_of,
    layer_records,
    source_images,
    take_over,
    ztocs_by_layer,
)
from soci_pipeline.errors import DamagedContent
from soci_pipeline.oci.annotations import IMAGE_MANIFEST_DIGEST, SOCI_INDEX_DIGEST
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import SOCI_INDEX_V2
from soci_pipeline.soci.index.attestations import follow_all
from soci_pipeline.soci.index.convert import Conversion
from soci_pipeline.soci.index.records import IndexVersion, PlatformImage, SociOptions


def convert_standalone(
    layout: Layout, destination: Path, *, options: SociOptions, env: Mapping[str, str], folder: Path
) -> Conversion:
    """Convert a layout and copy the verified result to a layout at ``destination``; ``folder`` is for temporary files.

    The program receives only the images. It would remove the annotations that link attestations to them, so
    attestations are updated and added afterwards.
    """
    images, attestations = source_images(layout)
    soci = find_soci(env, folder / "store", minimum=MINIMUM_STANDALONE)
    source = _copy_without_attestations(images, layout, folder / "source")
    result = Layout.create(destination)
    take_over(layout, attestations, result)
    if not soci.convert(source.path, folder / "converted", options):
        take_over(layout, [image.descriptor for image in images], result)
        return _finished(result, images, attestations, (), options)
    made = Layout.open(folder / "converted")
    _verify_into(made, result, source)
    document = result.read_document(made.root())
    if not isinstance(document, ImageIndex):
        raise DamagedContent("`soci convert` wrote no image index")
    indexes = [item for item in document.manifests if item.artifact_type == SOCI_INDEX_V2]
    converted = images_of(result, document.manifests)
    renamed = _renamed(images, converted)
    followed = follow_all(attestations, renamed, layout, result)
    return _finished(result, converted, followed, indexes, options)


def _copy_without_attestations(images: Sequence[SourceImage], layout: Layout, path: Path) -> Layout:
    source = Layout.create(path)
    descriptors = [image.descriptor for image in images]
    take_over(layout, descriptors, source)
    source.set_roots(descriptors if len(descriptors) == 1 else [source.add_document(index_of(descriptors, ()))])
    return source


def _verify_into(made: Layout, result: Layout, source: Layout) -> None:
    """Copy blobs that were verified at import, and verify those that the program has written."""
    for node in made.walk(made.root()):
        if source.has(node):
            result.take_over(source, node)
        elif made.has(node) or not node.may_be_foreign:
            with made.open_blob(node) as blob:
                result.add_chunks(iter(partial(blob.read, 1 << 20), b""), node)


def _renamed(before: Sequence[SourceImage], after: Sequence[SourceImage]) -> dict[Digest, Descriptor]:
    """Map digests of changed images to their new descriptors, matching by config, which conversion does not change."""
    configs = {image.manifest.config.digest: image.descriptor for image in after}
    found = {image.descriptor.digest: configs.get(image.manifest.config.digest) for image in before}
    return {old: new for old, new in found.items() if new is not None and new.digest != old}


def _finished(
    result: Layout,
    images: Sequence[SourceImage],
    attestations: Sequence[Descriptor],
    indexes: Sequence[Descriptor],
    options: SociOptions,
) -> Conversion:
    """Build the records, and write the image index with images, attestations and SOCI indexes."""
    records = []
    for image in images:
        soci_index = _soci_index_of(image, indexes)
        records.append(
            PlatformImage(
                platform=image.platform,
                manifest=image.descriptor,
                soci_index=soci_index,
                soci_version=IndexVersion.V2,
                attestations=attestations_of(image, attestations),
                layers=layer_records(result, image.manifest.layers, _ztocs(result, soci_index), options),
            )
        )
    root = result.add_document(index_of([image.descriptor for image in images], [*attestations, *indexes]))
    result.set_roots([root])
    return Conversion(layout=result, root=root, images=tuple(records))


def _soci_index_of(image: SourceImage, indexes: Sequence[Descriptor]) -> Descriptor | None:
    """Return the entry of an image's SOCI index. Images with the same layers share its digest, but not its entry."""
    named = image.manifest.annotations.get(SOCI_INDEX_DIGEST)
    entries = [each for each in indexes if each.digest == named]
    own = [each for each in entries if each.annotations.get(IMAGE_MANIFEST_DIGEST) == image.descriptor.digest]
    return next(iter(own or entries), None)


def _ztocs(layout: Layout, soci_index: Descriptor | None) -> dict[Digest, Digest]:
    if soci_index is None:
        return {}
    document = layout.read_document(soci_index)
    return ztocs_by_layer(document) if isinstance(document, ImageManifest) else {}
