"""Choose one image of a layout or archive that lists several, and report ambiguous ones.

umoci, `skopeo copy` into one folder and `docker save a b` write such layouts. Their ``index.json`` names each image in
an annotation (image-spec, annotations.md, ``org.opencontainers.image.ref.name``); containerd and Docker add the full
reference.
"""

from collections.abc import Iterable, Mapping, Sequence

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.annotations import CONTAINERD_NAME, REF_NAME
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.platform import Platform

_SHOWN = 20


def names_of(root: Descriptor) -> tuple[str, ...]:
    """Return the names of an image in ``index.json``."""
    names = (root.annotations.get(REF_NAME), root.annotations.get(CONTAINERD_NAME))
    return tuple(dict.fromkeys(name for name in names if name))


def distinct(roots: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    """Return one descriptor for each digest: an image with two names is listed twice."""
    return tuple({root.digest: root for root in roots}.values())


def choose_roots(roots: Sequence[Descriptor], ref: str | None, where: object) -> tuple[Descriptor, ...]:
    """Return the distinct roots, or only the one whose name or digest is ``ref``.

    Raises `InvalidInput` if ``ref`` matches no root or more than one.
    """
    if ref is None:
        return distinct(roots)
    chosen = distinct(root for root in roots if ref == root.digest or ref in names_of(root))
    if len(chosen) == 1:
        return chosen
    if chosen:
        raise InvalidInput(
            f"--ref {ref} matches {len(chosen)} images of {where}:\n{listed(chosen)}",
            advice="Choose one by its other name or by its digest.",
        )
    raise InvalidInput(
        f"{where} has no image {ref[:200]!r}; it has:\n{listed(distinct(roots))}",
        advice="Choose one with --ref NAME, or by its digest.",
    )


def listed(roots: Sequence[Descriptor]) -> str:
    """Format one line for each image: its names and its digest."""
    lines = [f"  {' = '.join(names_of(root)) or '(without a name)'}  {root.digest}" for root in roots[:_SHOWN]]
    more = [f"  and {len(roots) - _SHOWN} more"] if len(roots) > _SHOWN else []
    return "\n".join([*lines, *more])


def check_one_a_platform(
    images: Iterable[tuple[Descriptor, Platform, Digest]], names: Mapping[Digest, Descriptor], where: object
) -> None:
    """Raise `InvalidInput` if two different images have the same platform; a client could get either of them.

    Each image is given with its platform and the digest of its config: manifests with the same config are the same
    image, stored in two ways. ``names`` maps digests to roots, whose annotations name the image.
    """
    found: dict[Platform, dict[Digest, Descriptor]] = {}
    for image, platform, config in images:
        found.setdefault(platform.normalised(), {}).setdefault(config, image)
    for platform, different in found.items():
        if len(different) > 1:
            roots = [names.get(image.digest, image) for image in different.values()]
            can_choose = all(image.digest in names for image in different.values()) and len(names) > 1
            raise InvalidInput(
                f"{where} holds {len(different)} different images for {platform}:\n{listed(roots)}",
                advice="Choose one with --ref NAME, or by its digest."
                if can_choose
                else "Build the image index again with one image for each platform.",
            )
