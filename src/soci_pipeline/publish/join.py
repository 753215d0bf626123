"""The join: the images of all branches become one image index, or none does if any of them does not match.

`join` is a pure function: no network, no clock, and the same bytes for any order of branches. It reads manifests and
configs through ``read``, collects every problem, and raises them together. `soci_pipeline.publish.collect` finds the
images of a join in a registry.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from soci_pipeline.errors import InvalidInput, JoinRefused, SociPipelineError
from soci_pipeline.oci.annotations import (
    ATTESTATION_TYPE,
    IMAGE_LAYER_DIGEST,
    IMAGE_MANIFEST_DIGEST,
    REFERENCE_DIGEST,
    REFERENCE_TYPE,
    SOCI_INDEX_DIGEST,
)
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.image_config import platform_of_config
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest, parse_image_manifest
from soci_pipeline.oci.media_types import OCI_INDEX, SOCI_INDEX_V1, SOCI_INDEX_V2
from soci_pipeline.oci.platform import Platform
from soci_pipeline.soci.index.records import IndexVersion, PlatformImage

Read = Callable[[Descriptor], bytes]
"""Return the verified bytes of a manifest or config; raise a `SociPipelineError` if they are missing or damaged."""

UNKNOWN = Platform("unknown", "unknown")


@dataclass(frozen=True, slots=True)
class _Checked:
    """One image that was read, with its descriptors as the index lists them."""

    platform: Platform
    image: Descriptor
    attestations: tuple[Descriptor, ...]
    soci_index: Descriptor | None


def join(
    images: Sequence[PlatformImage],
    *,
    annotations: Mapping[str, str],
    read: Read,
    platforms: Sequence[Platform] | None = None,
) -> ImageIndex:
    """The image index of some platforms: images by platform, then attestations, then v2 SOCI indexes.

    Args:
        images: What the branches published; one platform is enough.
        annotations: Of the index itself; see `soci_pipeline.publish.annotations.commit_annotations`.
        read: Where manifests and configs come from.
        platforms: What was asked for; each must be there, and no other. Not compared where it is None.

    Raises:
        JoinRefused: with one line for every problem that was found.
        SociPipelineError: a temporary failure of ``read`` is raised unchanged, since the same call may succeed later.

    """
    problems: list[str] = []
    checked = [item for image in images if (item := _check(image, read, problems)) is not None]
    problems += _platform_problems(images, checked, platforms)
    if problems:
        raise JoinRefused(
            "cannot join the images into one image index:\n" + "\n".join(f"  - {line}" for line in problems),
            advice="Nothing was published. Build the images above again, leave them out, or request only the "
            "existing platforms.",
        )
    ordered = sorted(checked, key=lambda item: (item.platform.normalised(), item.image.digest))
    return ImageIndex(
        media_type=OCI_INDEX,
        manifests=(
            *(item.image for item in ordered),
            *(attestation for item in ordered for attestation in item.attestations),
            *(item.soci_index for item in ordered if item.soci_index is not None),
        ),
        annotations=dict(annotations),
    )


def _check(image: PlatformImage, read: Read, problems: list[str]) -> _Checked | None:
    """Read one image; record its problems and return None if its manifest is unreadable."""
    where = f"{image.platform} ({image.manifest.digest})"
    found: list[str] = []
    manifest = _manifest(image.manifest, read, found)
    platform = _platform(manifest, image, read, found) if manifest else None
    if manifest is not None:
        found += _soci_problems(image, manifest, read)
        found += _attestation_problems(image, read)
    problems += [f"{where}: {line}" for line in found]
    if manifest is None or platform is None:
        return None
    return _Checked(
        platform=platform,
        image=_image_descriptor(image.manifest, manifest, platform),
        attestations=tuple(_attestation_descriptor(each) for each in _in_order(image.attestations)),
        soci_index=_soci_descriptor(image, platform),
    )


def _in_order(attestations: tuple[Descriptor, ...]) -> list[Descriptor]:
    return sorted(attestations, key=lambda item: item.digest)


def _manifest(descriptor: Descriptor, read: Read, found: list[str]) -> ImageManifest | None:
    try:
        return parse_image_manifest(_read_exactly(descriptor, read), media_type=descriptor.media_type)
    except SociPipelineError as error:
        if error.temporary:
            raise
        found.append(f"its manifest {descriptor.digest} cannot be read: {error.reason}")
        return None


def _read_exactly(descriptor: Descriptor, read: Read) -> bytes:
    data = read(descriptor)
    if Digest.of(data) != descriptor.digest or len(data) != descriptor.size:
        raise InvalidInput(
            f"{descriptor.digest} should have {descriptor.size} bytes; the registry returned {len(data)} with the "
            f"digest {Digest.of(data)}"
        )
    return data


def _platform(manifest: ImageManifest, image: PlatformImage, read: Read, found: list[str]) -> Platform | None:
    """Return the platform in the image config, after comparing it with those of the branch and the descriptor."""
    try:
        platform = platform_of_config(_read_exactly(manifest.config, read))
    except SociPipelineError as error:
        if error.temporary:
            raise
        found.append(f"its config {manifest.config.digest} cannot be read: {error.reason}")
        return None
    if not platform.matches(image.platform):
        found.append(f"its config says {platform}, but the branch built {image.platform}")
    claimed = image.manifest.platform
    if claimed is not None and not platform.matches(claimed):
        found.append(f"its config says {platform}, but its descriptor says {claimed}")
    return platform


def _soci_problems(image: PlatformImage, manifest: ImageManifest, read: Read) -> list[str]:
    """Check both references between an image and its SOCI index, and the structure of the SOCI index."""
    named = manifest.annotations.get(SOCI_INDEX_DIGEST)
    soci = image.soci_index
    found: list[str] = []
    if image.soci_version is IndexVersion.V2 and named is not None and soci is None:
        found.append(f"its manifest names the SOCI index {named}, but the branch published none")
    if soci is None:
        return found
    index = _manifest(soci, read, found)
    if index is None:
        return found
    if image.soci_version is IndexVersion.V2:
        found += _v2_problems(image.manifest, named, soci, index)
    elif index.config.media_type != SOCI_INDEX_V1 or index.subject is None:
        found.append(
            f"{soci.digest} is not a v1 SOCI index: it must have the config type {SOCI_INDEX_V1} and a subject"
        )
    elif index.subject.digest != image.manifest.digest:
        found.append(
            f"the v1 SOCI index {soci.digest} has the subject {index.subject.digest}, which is a different image"
        )
    layers = {str(layer.digest) for layer in manifest.layers}
    for ztoc in index.layers:
        layer = ztoc.annotations.get(IMAGE_LAYER_DIGEST)
        if layer is not None and layer not in layers:
            found.append(f"the SOCI index {soci.digest} has a zTOC for {layer}, which is not a layer of the image")
    return found


def _v2_problems(image: Descriptor, named: str | None, soci: Descriptor, index: ImageManifest) -> list[str]:
    found = []
    if named is None:
        found.append(f"its manifest has no annotation {SOCI_INDEX_DIGEST}, but the SOCI index is {soci.digest}")
    elif named != soci.digest:
        found.append(f"its manifest names the SOCI index {named}, but the branch published {soci.digest}")
    back = soci.annotations.get(IMAGE_MANIFEST_DIGEST)
    if back != image.digest:
        found.append(f"the SOCI index {soci.digest} belongs to {back or 'no image'} by {IMAGE_MANIFEST_DIGEST}")
    kinds = {index.config.media_type, soci.artifact_type or SOCI_INDEX_V2}
    if kinds != {SOCI_INDEX_V2}:
        found.append(f"{soci.digest} is not a v2 SOCI index: its type is {' and '.join(sorted(kinds))}")
    claimed = soci.platform
    if claimed is not None and image.platform is not None and not claimed.matches(image.platform):
        found.append(f"the SOCI index {soci.digest} is listed for {claimed}")
    return found


def _attestation_problems(image: PlatformImage, read: Read) -> list[str]:
    found: list[str] = []
    for attestation in image.attestations:
        target = attestation.annotations.get(REFERENCE_DIGEST)
        if target != image.manifest.digest:
            found.append(f"the attestation {attestation.digest} is about {target or 'no image'} by {REFERENCE_DIGEST}")
        kind = attestation.annotations.get(REFERENCE_TYPE)
        if kind != ATTESTATION_TYPE:
            found.append(f"the attestation {attestation.digest} has the {REFERENCE_TYPE} {kind!r}")
        manifest = _manifest(attestation, read, found)
        if manifest is not None and manifest.subject is not None and manifest.subject.digest != image.manifest.digest:
            found.append(f"the attestation {attestation.digest} has the subject {manifest.subject.digest}")
    return found


def _platform_problems(
    images: Sequence[PlatformImage], checked: Sequence[_Checked], wanted: Sequence[Platform] | None
) -> list[str]:
    if not images:
        return ["there are no images"]
    found = []
    groups: dict[Platform, list[Digest]] = {}
    for item in checked:
        groups.setdefault(_comparable(item.platform), []).append(item.image.digest)
    for platform, digests in sorted(groups.items()):
        if len(digests) > 1:
            found.append(f"{platform}: {len(digests)} images of one platform: {', '.join(sorted(digests))}")
    if wanted is not None:
        # A branch whose image is unreadable is already reported; do not report it as missing too.
        there = set(groups) | {_comparable(image.platform) for image in images}
        asked = {_comparable(platform) for platform in wanted}
        found += [f"{platform}: no image of this platform was published" for platform in sorted(asked - there)]
        found += [f"{platform}: this platform was not requested" for platform in sorted(set(groups) - asked)]
    return found


def _comparable(platform: Platform) -> Platform:
    """Return what `Platform.matches` compares, plus the Windows version: two of those may be in one index."""
    plain = platform.normalised()
    return Platform(plain.os, plain.architecture, plain.variant, plain.os_version if plain.os == "windows" else "")


def _image_descriptor(given: Descriptor, manifest: ImageManifest, platform: Platform) -> Descriptor:
    named = manifest.annotations.get(SOCI_INDEX_DIGEST)
    annotations = given.annotations | ({SOCI_INDEX_DIGEST: named} if named else {})
    return Descriptor(
        media_type=given.media_type,
        digest=given.digest,
        size=given.size,
        annotations=annotations,
        platform=given.platform or platform,
    )


def _attestation_descriptor(given: Descriptor) -> Descriptor:
    return given.annotated(platform=given.platform or UNKNOWN, data="")


def _soci_descriptor(image: PlatformImage, platform: Platform) -> Descriptor | None:
    soci = image.soci_index
    if soci is None or image.soci_version is not IndexVersion.V2:
        return None
    return soci.annotated(
        artifact_type=SOCI_INDEX_V2, platform=soci.platform or image.manifest.platform or platform, data=""
    )
