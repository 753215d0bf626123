"""Read the images of a layout as one image index, and select the images to index.

Tools write ``index.json`` in three forms: it lists one image index, one image, or several images (as
go-containerregistry does). The result is the same.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.annotations import is_attestation
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.image_config import platform_of_config
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.layout_choice import check_one_a_platform, choose_roots, listed
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import DOCKER_CONFIG, IMAGE_INDEXES, IMAGE_MANIFESTS, OCI_CONFIG, OCI_INDEX
from soci_pipeline.oci.platform import Platform


@dataclass(frozen=True)
class SourceImage:
    """One image of the source; ``chosen`` is the platform as requested, None if the image is not indexed.

    ``turn`` is the position of the platform in the request.
    """

    descriptor: Descriptor
    manifest: ImageManifest
    platform: Platform
    chosen: Platform | None = None
    turn: int = 0


@dataclass(frozen=True, slots=True)
class SourceLayout:
    """A layout as one image index, and the images in it.

    ``root`` is the descriptor of that image index if it is stored and the only one in ``index.json``, otherwise None.
    """

    layout: Layout
    root: Descriptor | None
    index: ImageIndex
    images: tuple[SourceImage, ...]


def read_layout(layout: Layout, platforms: Sequence[Platform] | None, *, ref: str | None = None) -> SourceLayout:
    """Read a layout and choose the images for ``platforms`` (default: all).

    ``ref`` chooses one of several images in ``index.json`` by name or digest. Raises `InvalidInput` for a source
    without images, with two different images for one platform, or without an image for a requested platform.
    """
    roots = choose_roots(layout.roots(), ref, f"layout {layout.path}")
    index = _index(layout, roots)
    index.check_listed()
    images = [image for child in index.manifests if (image := _image(layout, child)) is not None]
    if not images:
        raise InvalidInput(f"the layout {layout.path} contains no image")
    _check_platforms(layout, (*images, *_nested_images(layout, index)), {root.digest: root for root in roots})
    root = roots[0] if len(roots) == 1 and roots[0].media_type == OCI_INDEX else None
    return SourceLayout(layout, root, index, tuple(_choose(images, platforms)))


def in_requested_order(images: Sequence[SourceImage]) -> list[SourceImage]:
    """Return the chosen images in the order of the requested platforms."""
    return sorted((image for image in images if image.chosen), key=lambda image: image.turn)


def check_images(source: Layout, root: Descriptor) -> None:
    """Raise `InvalidInput` if an image index lists two different images for one platform.

    Manifests without a readable platform, such as signatures, are ignored, since clients do not choose them.
    """
    if root.media_type not in IMAGE_INDEXES:
        return
    _check_platforms(source, _nested_images(source, ImageIndex(manifests=(root,))), {})


def _nested_images(source: Layout, index: ImageIndex) -> list[SourceImage]:
    """Return the readable images of nested image indexes, which clients choose from too."""
    images: list[SourceImage] = []
    seen: set[Digest] = set()
    pending = list(index.manifests)
    while pending:
        node = pending.pop()
        if node.media_type not in IMAGE_INDEXES or node.digest in seen or not source.has(node):
            continue
        seen.add(node.digest)
        children = source.read_document(node).children
        pending += children
        for child in children:
            with contextlib.suppress(InvalidInput):
                images += [image] if (image := _image(source, child)) is not None else []
    return images


def _check_platforms(source: Layout, images: Iterable[SourceImage], names: Mapping[Digest, Descriptor]) -> None:
    # The config of a signature may have a platform with empty strings.
    named = (image for image in images if image.platform.os and image.platform.architecture)
    found = ((image.descriptor, image.platform, image.manifest.config.digest) for image in named)
    check_one_a_platform(found, names, f"layout {source.path}")


def _index(source: Layout, roots: Sequence[Descriptor]) -> ImageIndex:
    if len(roots) == 1 and isinstance(document := source.read_document(roots[0]), ImageIndex):
        return document
    if any(root.media_type in IMAGE_INDEXES for root in roots):
        raise InvalidInput(
            f"layout {source.path} lists {len(roots)} separate images:\n{listed(roots)}",
            advice="Choose one with --ref NAME, or by its digest.",
        )
    return ImageIndex(manifests=tuple(_listed(source, root) for root in roots))


def _listed(source: Layout, root: Descriptor) -> Descriptor:
    """Return the descriptor of an image in ``index.json`` in the form that an image index would list it."""
    if not source.has(root):
        return root.annotated(annotations={})
    document = source.read_document(root)
    if not isinstance(document, ImageManifest) or is_attestation(root) or root.artifact_type:
        return root
    if document.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        return root
    platform = platform_of_config(source.read(document.config))
    spelled = root.platform if root.platform and root.platform.matches(platform) else _as_containerd_writes(platform)
    # Annotations in ``index.json`` are local names of the image.
    return root.annotated(annotations={}, platform=spelled)


def _image(source: Layout, child: Descriptor) -> SourceImage | None:
    """Return the image of an entry; None for attestations, SOCI indexes, other artifacts and images not saved."""
    if child.media_type not in IMAGE_MANIFESTS or child.artifact_type or is_attestation(child):
        return None
    if not source.has(child) or (child.platform is not None and child.platform.is_unknown):
        return None
    manifest = source.read_document(child)
    if not isinstance(manifest, ImageManifest) or manifest.artifact_type:
        return None
    if manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        return None
    platform = child.platform or platform_of_config(source.read(manifest.config))
    return SourceImage(child, manifest, platform)


def _choose(images: Sequence[SourceImage], platforms: Sequence[Platform] | None) -> Iterable[SourceImage]:
    if platforms is None:
        return [replace(image, chosen=image.platform) for image in images]
    chosen: dict[Digest, SourceImage] = {}
    for turn, platform in enumerate(platforms):
        matching = next((image for image in images if image.platform.matches(platform)), None)
        if matching is None:
            there = ", ".join(str(image.platform) for image in images)
            raise InvalidInput(f"the image has no {platform}", advice=f"It has {there}.")
        chosen.setdefault(matching.descriptor.digest, replace(matching, chosen=_as_selected(platform), turn=turn))
    return [chosen.get(image.descriptor.digest, image) for image in images]


def _as_containerd_writes(platform: Platform) -> Platform:
    """Normalise the platform of a config as containerd's platforms package does: arm64 without v8, arm with v7."""
    plain = platform.normalised()
    return replace(plain, variant="v7") if plain.architecture == "arm" and not plain.variant else plain


def _as_selected(platform: Platform) -> Platform:
    """Normalise a requested platform as that package does: keep the default variant of ARM only if it was given."""
    plain = platform.normalised()
    usual = {"arm": "v7", "arm64": "v8"}.get(plain.architecture, "") if platform.variant else ""
    return replace(plain, variant=plain.variant or usual)
