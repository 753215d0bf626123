"""The documents of an image that got SOCI indexes: manifests that name them, attestations that follow, the image index.

No network here: attestations are read by a function that brings them into a scratch layout, and everything that is new
is left in there, to be pushed. Entries keep their places; new SOCI indexes stand at the end, in the images' order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from soci_pipeline.images.graph import ImageGraph, is_soci_index
from soci_pipeline.oci.annotations import IMAGE_MANIFEST_DIGEST, REFERENCE_DIGEST, SOCI_INDEX_DIGEST, is_attestation
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, SOCI_INDEX_V2
from soci_pipeline.reindex.image_plan import ImagePlan
from soci_pipeline.soci.index.attestations import follow_all
from soci_pipeline.soci.index.document import CONFIG, IndexedLayer, soci_index
from soci_pipeline.soci.index.records import IndexVersion, PlatformImage

Fetch = Callable[[Descriptor], None]
"""Brings an attestation's manifest, config and statements into the scratch layout."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """The new image index, and the manifests to push before it, all in the scratch layout.

    ``changed`` is whether any image got a SOCI index.
    """

    index: Descriptor
    images: tuple[PlatformImage, ...]
    manifests: tuple[Descriptor, ...]
    changed: bool


@dataclass(frozen=True, slots=True)
class _NewImage:
    """An image that got a SOCI index: both as they are stored, and as the image index lists them."""

    manifest: Descriptor
    soci_index: Descriptor
    entry: Descriptor
    soci_entry: Descriptor


@dataclass(frozen=True, slots=True)
class _Followed:
    """An attestation or artifact whose image got another digest, with its new descriptor."""

    before: Descriptor
    after: Descriptor


def assemble(
    graph: ImageGraph,
    plans: Sequence[ImagePlan],
    *,
    span_size: int,
    build_tool: str,
    scratch: Layout,
    fetch: Fetch,
) -> Assembled:
    """The new image index of a graph; an image that is done, or has nothing to index, stays as it is.

    A single image becomes an image index of one. Annotations of the index are kept.
    """
    images: dict[Digest, _NewImage] = {}
    for plan in plans:
        digest = plan.node.descriptor.digest
        if not plan.is_done and any(each.ztoc for each in plan.layers) and digest not in images:
            images[digest] = _new_image(plan, span_size, build_tool, scratch)
    entries = {digest: image.entry for digest, image in images.items()}
    followed = _follow(graph, entries, scratch, fetch)
    index = ImageIndex(
        media_type=OCI_INDEX,
        artifact_type=graph.index.artifact_type if graph.index else "",
        subject=graph.index.subject if graph.index else None,
        manifests=(*_entries(graph, entries, followed), *(image.soci_entry for image in images.values())),
        annotations=graph.index.annotations if graph.index else {},
    )
    return Assembled(
        index=scratch.add_document(index),
        images=tuple(_record(plan, index, entries.get(plan.node.descriptor.digest)) for plan in plans),
        manifests=(
            *(stored for image in images.values() for stored in (image.soci_index, image.manifest)),
            *(each.after.plain for each in followed),
        ),
        changed=bool(images),
    )


def _new_image(plan: ImagePlan, span_size: int, build_tool: str, scratch: Layout) -> _NewImage:
    document = soci_index(
        [IndexedLayer(layer=each.layer, ztoc=each.ztoc, reason=each.reason) for each in plan.layers],
        version=IndexVersion.V2,
        span_size=span_size,
        build_tool=build_tool,
    )
    scratch.add_bytes(CONFIG, SOCI_INDEX_V2)
    soci = scratch.add_document(document)
    old = plan.node.descriptor
    named = {SOCI_INDEX_DIGEST: str(soci.digest)}
    # Docker's types become OCI's, since an annotated manifest is an OCI one; layers keep theirs.
    manifest = plan.node.manifest.replaced(
        media_type=OCI_MANIFEST,
        config=plan.node.manifest.config.annotated(media_type=OCI_CONFIG),
        annotations=plan.node.manifest.annotations | named,
    )
    new = scratch.add_document(manifest)
    platform = old.platform or plan.node.platform
    return _NewImage(
        manifest=new,
        soci_index=soci,
        entry=Descriptor(
            media_type=new.media_type,
            digest=new.digest,
            size=new.size,
            annotations=old.annotations | named,
            platform=platform,
        ),
        soci_entry=soci.annotated(
            artifact_type=SOCI_INDEX_V2, platform=platform, annotations={IMAGE_MANIFEST_DIGEST: str(new.digest)}
        ),
    )


def _follow(
    graph: ImageGraph, images: Mapping[Digest, Descriptor], scratch: Layout, fetch: Fetch
) -> tuple[_Followed, ...]:
    """The attestations and artifacts whose image got another digest, rewritten in the scratch layout."""
    if graph.index is None:
        return ()
    names = {str(digest) for digest in images}
    affected: list[Descriptor] = []
    pending = [entry for entry in graph.index.manifests if entry.digest in graph.artifacts]
    # What refers to an artifact that changes will change too.
    while found := [entry for entry in pending if _names_of(graph, entry) & names]:
        affected += found
        names |= {str(entry.digest) for entry in found}
        pending = [entry for entry in pending if entry not in found]
    for entry in affected:
        fetch(entry)
    after = follow_all(affected, images, scratch, scratch)
    return tuple(_Followed(*pair) for pair in zip(affected, after, strict=True))


def _names_of(graph: ImageGraph, entry: Descriptor) -> set[str]:
    """What an attestation or artifact refers to: by its annotation, and by its manifest's subject."""
    subject = graph.artifacts[entry.digest].subject
    named = entry.annotations.get(REFERENCE_DIGEST) if is_attestation(entry) else None
    return {*([named] if named else []), *([str(subject.digest)] if subject else [])}


def _entries(graph: ImageGraph, images: Mapping[Digest, Descriptor], followed: Sequence[_Followed]) -> list[Descriptor]:
    """What the new index lists of the old one, or of the single image."""
    if graph.index is None:
        image = graph.images[0]
        return [images.get(image.descriptor.digest, image.descriptor.annotated(platform=image.platform))]
    return [kept for entry in graph.index.manifests if (kept := _entry(entry, images, followed)) is not None]


def _entry(entry: Descriptor, images: Mapping[Digest, Descriptor], followed: Sequence[_Followed]) -> Descriptor | None:
    """An entry of the index as it stands in the new one; None for a SOCI index that was replaced."""
    if entry.digest in images:
        return images[entry.digest]
    if is_soci_index(entry):
        return None if entry.annotations.get(IMAGE_MANIFEST_DIGEST) in images else entry
    return next((each.after for each in followed if each.before == entry), entry)


def _record(plan: ImagePlan, index: ImageIndex, image: Descriptor | None) -> PlatformImage:
    manifest = image or plan.node.descriptor
    entries = index.manifests
    return PlatformImage(
        platform=plan.node.platform,
        manifest=manifest,
        soci_index=next(
            (
                each
                for each in entries
                if is_soci_index(each) and each.annotations.get(IMAGE_MANIFEST_DIGEST) == manifest.digest
            ),
            None,
        ),
        attestations=tuple(
            each
            for each in entries
            if is_attestation(each) and each.annotations.get(REFERENCE_DIGEST) == manifest.digest
        ),
        layers=tuple(each.record for each in plan.layers),
    )
