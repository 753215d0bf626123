"""Find the platforms that are complete in a layout, and remove others from its image index.

`docker save --platform`, `skopeo copy` without ``--all`` and `ctr image export` write an index that lists platforms
whose manifests or layers were not saved. Registries reject it (distribution-spec, "Pushing Manifests").
"""

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from soci_pipeline.errors import DamagedContent, InvalidInput
from soci_pipeline.log import logger
from soci_pipeline.oci.annotations import IMAGE_MANIFEST_DIGEST, REFERENCE_DIGEST, is_attestation
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.image_config import platform_of_config
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import MAX_DEPTH, MAX_LISTED, ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import DOCKER_CONFIG, IMAGE_INDEXES, IMAGE_MANIFESTS, OCI_CONFIG
from soci_pipeline.oci.platform import Platform

_BELONGS_TO = (REFERENCE_DIGEST, IMAGE_MANIFEST_DIGEST)
_SAVE_AGAIN = "Save the image again with all its platforms"


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image in an image index; ``missing`` is its first blob that is not in the layout.

    ``platform`` is None if it can only be read from a missing blob.
    """

    descriptor: Descriptor
    platform: Platform | None
    missing: Digest | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all blobs are in the layout, so that it can be pushed."""
        return self.missing is None

    def matches(self, platforms: Iterable[Platform]) -> bool:
        """Return whether the image is for one of the platforms."""
        return self.platform is not None and any(self.platform.matches(platform) for platform in platforms)

    def __str__(self) -> str:
        return str(self.platform or self.descriptor.digest)


class SelectedLayout(Layout):
    """A layout with different roots and image indexes, which are kept in memory; the folder is not changed."""

    def __init__(self, layout: Layout, roots: Sequence[Descriptor], indexes: Iterable[ImageIndex]) -> None:
        super().__init__(layout.path)
        self._verified = layout._verified
        self._roots = tuple(roots)
        self._indexes = {index.descriptor.digest: index.encode() for index in indexes}

    def roots(self) -> tuple[Descriptor, ...]:
        return self._roots

    def has(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self._indexes or super().has(descriptor)

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        data = self._indexes.get(descriptor.digest)
        return super().open_blob(descriptor) if data is None else cast("BinaryIO", io.BytesIO(data))


def select_platforms(
    layout: Layout, roots: Sequence[Descriptor], platforms: Sequence[Platform], *, drop_complete: bool = True
) -> Layout:
    """Return the layout with only the images for ``platforms`` and the manifests that refer to them.

    Other images are removed with their attestations, SOCI indexes and other manifests that refer to them; without
    ``drop_complete`` only incomplete images are removed. An index that loses no entry keeps its digest.

    Raises `InvalidInput` if no image for a platform is listed, and `DamagedContent` if no such image is complete.
    """
    scan = _scanned(layout, roots)
    for platform in platforms:
        _check_platform(scan, platform)
    for image in scan.images.values():
        if not image.is_complete or (drop_complete and not image.matches(platforms)):
            scan.gone.add(image.descriptor.digest)
            logger().info("%s is skipped", image)
    _drop_dependents(scan)
    kept = [after for root in roots if (after := _kept(scan, root)) is not None]
    return SelectedLayout(layout, kept, (each[1] for each in scan.rewritten.values() if each is not None))


def check_complete(layout: Layout, roots: Sequence[Descriptor]) -> None:
    """Raise `DamagedContent` if an image index lists an image with blobs missing from the layout.

    The error names the platforms that are complete.
    """
    if any(root.media_type in IMAGE_INDEXES for root in roots):
        scan = _scanned(layout, roots)
        if incomplete := scan.incomplete():
            raise _incomplete(scan, incomplete)


def incomplete_platforms(layout: Layout, roots: Sequence[Descriptor]) -> tuple[ListedImage, ...]:
    """Return the images below ``roots`` with blobs missing from the layout."""
    return tuple(_scanned(layout, roots).incomplete())


@dataclass(slots=True)
class _Scan:
    """The manifests and indexes below the roots of a layout.

    ``gone`` holds the digests that are removed, ``losing`` the image indexes that contain them. ``rewritten`` maps the
    old digests of those indexes to the new ones, or to None if they become empty.
    """

    layout: Layout
    images: dict[Digest, ListedImage] = field(default_factory=dict)
    others: dict[Digest, Descriptor] = field(default_factory=dict)
    indexes: dict[Digest, ImageIndex] = field(default_factory=dict)
    gone: set[Digest] = field(default_factory=set)
    losing: set[Digest] = field(default_factory=set)
    rewritten: dict[Digest, tuple[Descriptor, ImageIndex] | None] = field(default_factory=dict)

    def incomplete(self) -> list[ListedImage]:
        return [image for image in self.images.values() if not image.is_complete]

    def complete_platforms(self) -> list[Platform]:
        complete = (image.platform for image in self.images.values() if image.is_complete)
        return list(dict.fromkeys(platform for platform in complete if platform is not None))


def _scanned(layout: Layout, roots: Sequence[Descriptor]) -> _Scan:
    scan = _Scan(layout)
    for root in roots:
        _scan_descriptor(scan, root, depth=0)
    return scan


def _scan_descriptor(scan: _Scan, item: Descriptor, *, depth: int) -> None:
    if item.digest in scan.images or item.digest in scan.others or item.digest in scan.indexes:
        return
    if depth > MAX_DEPTH:
        raise InvalidInput(f"the image index in layout {scan.layout.path} is nested deeper than {MAX_DEPTH}")
    if len(scan.images) + len(scan.others) + len(scan.indexes) > MAX_LISTED:
        raise InvalidInput(f"the image index in layout {scan.layout.path} lists more than {MAX_LISTED} manifests")
    if item.media_type in IMAGE_INDEXES and scan.layout.has(item):
        index = scan.layout.read_document(item)
        if isinstance(index, ImageIndex):
            index.check_listed()
            scan.indexes[item.digest] = index
            for child in index.manifests:
                _scan_descriptor(scan, child, depth=depth + 1)
            return
    image = _image(scan.layout, item)
    if image is None:
        scan.others[item.digest] = item
    else:
        scan.images[item.digest] = image


def _image(layout: Layout, item: Descriptor) -> ListedImage | None:
    """Return the image of a descriptor; None for attestations, SOCI indexes and other artifacts."""
    if item.media_type not in IMAGE_MANIFESTS | IMAGE_INDEXES or item.artifact_type or is_attestation(item):
        return None
    if any(key in item.annotations for key in _BELONGS_TO) or (item.platform and item.platform.is_unknown):
        return None
    if not layout.has(item):
        return ListedImage(item, item.platform, missing=item.digest)
    manifest = layout.read_document(item)
    if not isinstance(manifest, ImageManifest) or manifest.artifact_type or manifest.subject is not None:
        return None
    if manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        return None
    parts = (child for child in manifest.children if not layout.has(child) and not child.may_be_foreign)
    missing = next((child.digest for child in parts), None)
    platform = item.platform
    if platform is None and layout.has(manifest.config):
        # The config of a signature may have no platform, or one with empty strings.
        with contextlib.suppress(InvalidInput):
            platform = platform_of_config(layout.read(manifest.config))
        if platform is None or not platform.os or not platform.architecture:
            return None
    return ListedImage(item, platform, missing)


def _check_platform(scan: _Scan, platform: Platform) -> None:
    listed = [image for image in scan.images.values() if image.matches([platform])]
    if not listed:
        there = ", ".join(dict.fromkeys(str(image) for image in scan.images.values())) or "no image"
        raise InvalidInput(f"layout {scan.layout.path} has no {platform}", advice=f"It has {there}.")
    if not any(image.is_complete for image in listed):
        raise _incomplete(scan, listed)


def _incomplete(scan: _Scan, images: Sequence[ListedImage]) -> DamagedContent:
    lines = [f"  {image}: blob {image.missing} is missing or truncated" for image in images]
    complete = scan.complete_platforms()
    advice = f"No platform is complete. {_SAVE_AGAIN}."
    if complete:
        options = " ".join(f"--platform {platform}" for platform in complete)
        advice = f"Complete: {', '.join(map(str, complete))}. Use only these with {options}. Or: {_SAVE_AGAIN.lower()}."
    return DamagedContent(
        f"layout {scan.layout.path} lists platforms that it does not contain:\n" + "\n".join(lines), advice=advice
    )


def _drop_dependents(scan: _Scan) -> None:
    """Remove attestations, SOCI indexes and signatures of removed or rewritten manifests, transitively."""
    before = -1
    while before != len(scan.gone):
        before = len(scan.gone)
        _find_losing(scan)
        lost = scan.gone | scan.losing
        for digest, item in scan.others.items():
            if digest not in scan.gone and _is_lost(scan.layout, item, lost):
                scan.gone.add(digest)
    _find_losing(scan)


def _find_losing(scan: _Scan) -> None:
    before = -1
    while before != len(scan.losing):
        before = len(scan.losing)
        for digest, index in scan.indexes.items():
            if any(child.digest in scan.gone or child.digest in scan.losing for child in index.manifests):
                scan.losing.add(digest)


def _is_lost(layout: Layout, item: Descriptor, lost: set[Digest]) -> bool:
    if any(item.annotations.get(key) in lost for key in _BELONGS_TO):
        return True
    if item.media_type not in IMAGE_MANIFESTS:
        return False
    if not layout.has(item):
        logger().warning("%s belongs to the image but is not in layout %s; it is skipped", item.digest, layout.path)
        return True
    subject = layout.read_document(item).subject
    return subject is not None and subject.digest in lost


def _kept(scan: _Scan, item: Descriptor) -> Descriptor | None:
    """Return the descriptor of an entry after removal; None if nothing is left of it."""
    if item.digest in scan.gone:
        return None
    if item.digest not in scan.losing:
        return item
    if item.digest not in scan.rewritten:
        index = scan.indexes[item.digest]
        children = tuple(after for child in index.manifests if (after := _kept(scan, child)) is not None)
        left = index.replaced(manifests=children)
        # Thousands of entries may refer to the same index, so encode it only once.
        scan.rewritten[item.digest] = (left.descriptor, left) if children else None
    reduced = scan.rewritten[item.digest]
    if reduced is None:
        return None
    stored, _ = reduced
    return item.annotated(digest=stored.digest, size=stored.size, data="")
