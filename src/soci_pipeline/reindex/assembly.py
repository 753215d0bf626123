"""Assembles the documents of an image with new SOCI indexes: manifests, updated attestations, and the image index.

This module does not use the network: a callback copies attestations into a scratch layout, and all new documents are
written there, to be pushed later. Entries of the image index keep their positions; new SOCI indexes are appended in the
order of the images.
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
"""Function that copies an attestation's manifest, config and statements into the scratch layout."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """The new image index and the manifests to push before it, all in the scratch layout.

    ``changed`` is true if any image got a new SOCI index.
    """

    index: Descriptor
    images: tuple[PlatformImage, ...]
    manifests: tuple[Descriptor, ...]
    changed: bool


@dataclass(frozen=True, slots=True)
class _NewImage:
    """An image with a new SOCI index: the stored documents and their entries in the image index."""

    manifest: Descriptor
    soci_index: Descriptor
    entry: Descriptor
    soci_entry: Descriptor


@dataclass(frozen=True, slots=True)
class _Followed:
    """The old and new descriptors of an attestation or artifact whose image got a new digest."""

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
    """Create the new image index of a graph; images that are done or have no zTOC stay unchanged.

    A single image becomes an image index with one image. Annotations of the index are kept.
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
    # Docker manifests have no annotations, so manifest and config get OCI media types; layers keep theirs.
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
    """Rewrite the attestations and artifacts whose image got a new digest, in the scratch layout."""
    if graph.index is None:
        return ()
    names = {str(digest) for digest in images}
    affected: list[Descriptor] = []
    pending = [entry for entry in graph.index.manifests if entry.digest in graph.artifacts]
    # A document that refers to a changed artifact also changes.
    while found := [entry for entry in pending if _names_of(graph, entry) & names]:
        affected += found
        names |= {str(entry.digest) for entry in found}
        pending = [entry for entry in pending if entry not in found]
    for entry in affected:
        fetch(entry)
    after = follow_all(affected, images, scratch, scratch)
    return tuple(_Followed(*pair) for pair in zip(affected, after, strict=True))


def _names_of(graph: ImageGraph, entry: Descriptor) -> set[str]:
    """Return the digests that an attestation or artifact refers to, by its annotation and its manifest's subject."""
    subject = graph.artifacts[entry.digest].subject
    named = entry.annotations.get(REFERENCE_DIGEST) if is_attestation(entry) else None
    return {*([named] if named else []), *([str(subject.digest)] if subject else [])}


def _entries(graph: ImageGraph, images: Mapping[Digest, Descriptor], followed: Sequence[_Followed]) -> list[Descriptor]:
    """Return the entries of the new index that come from the old index or the single image."""
    if graph.index is None:
        image = graph.images[0]
        return [images.get(image.descriptor.digest, image.descriptor.annotated(platform=image.platform))]
    return [kept for entry in graph.index.manifests if (kept := _entry(entry, images, followed)) is not None]


def _entry(entry: Descriptor, images: Mapping[Digest, Descriptor], followed: Sequence[_Followed]) -> Descriptor | None:
    """Return the entry for the new index, or None for a SOCI index that was replaced."""
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
