"""The documents of an image that got SOCI indexes: manifests that name them, attestations that follow, the image index.

No network here: attestations are read by a function that brings them into a scratch layout, and everything that is new
is left in there, to be pushed. Entries keep their places; new SOCI indexes stand at the end, in the images' order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from soci_pipeline.images.graph import ImageGraph, is_soci_index
from soci_pipeline.oci.annotations import IMAGE_MANIFEST_DIGEST, REFERENCE_DIGEST, SOCI_INDEX_DIGEST, is_attestation
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, SOCI_INDEX_V2
from soci_pipeline.reindex.plan import ImagePlan
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


@dataclass(slots=True)
class _Assembly:
    graph: ImageGraph
    span_size: int
    build_tool: str
    scratch: Layout
    fetch: Fetch
    manifests: list[Descriptor] = field(default_factory=list)
    images: dict[Digest, Descriptor] = field(default_factory=dict)
    """New descriptors of images, by their old digests."""
    soci_entries: list[Descriptor] = field(default_factory=list)


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
    work = _Assembly(graph, span_size, build_tool, scratch, fetch)
    for plan in plans:
        if (
            not plan.is_done
            and any(each.ztoc for each in plan.layers)
            and plan.node.descriptor.digest not in work.images
        ):
            _index_image(work, plan)
    if graph.index is None:
        image = graph.images[0]
        alone = image.descriptor.annotated(platform=image.platform)
        entries = [work.images.get(image.descriptor.digest, alone)]
        annotations = dict[str, str]()
    else:
        followed = _followed(work, graph.index)
        entries = [kept for entry in graph.index.manifests if (kept := _entry(work, entry, followed)) is not None]
        annotations = graph.index.annotations
    index = ImageIndex(
        media_type=OCI_INDEX,
        artifact_type=graph.index.artifact_type if graph.index else "",
        subject=graph.index.subject if graph.index else None,
        manifests=(*entries, *work.soci_entries),
        annotations=annotations,
    )
    return Assembled(
        index=scratch.add_document(index),
        images=tuple(_record(plan, index, work.images.get(plan.node.descriptor.digest)) for plan in plans),
        manifests=tuple(work.manifests),
        changed=bool(work.images),
    )


def _index_image(work: _Assembly, plan: ImagePlan) -> None:
    soci = soci_index(
        [IndexedLayer(layer=each.layer, ztoc=each.ztoc, reason=each.reason) for each in plan.layers],
        version=IndexVersion.V2,
        span_size=work.span_size,
        build_tool=work.build_tool,
    )
    work.scratch.add_bytes(CONFIG, SOCI_INDEX_V2)
    found = work.scratch.add_document(soci)
    old = plan.node.descriptor
    # Docker's types become OCI's, since an annotated manifest is an OCI one; layers keep theirs.
    manifest = plan.node.manifest.replaced(
        media_type=OCI_MANIFEST,
        config=plan.node.manifest.config.annotated(media_type=OCI_CONFIG),
        annotations=plan.node.manifest.annotations | {SOCI_INDEX_DIGEST: str(found.digest)},
    )
    new = work.scratch.add_document(manifest)
    platform = old.platform or plan.node.platform
    work.manifests += [found, new]
    work.images[old.digest] = Descriptor(
        media_type=new.media_type,
        digest=new.digest,
        size=new.size,
        annotations=old.annotations | {SOCI_INDEX_DIGEST: str(found.digest)},
        platform=platform,
    )
    work.soci_entries.append(
        found.annotated(
            artifact_type=SOCI_INDEX_V2, platform=platform, annotations={IMAGE_MANIFEST_DIGEST: str(new.digest)}
        )
    )


def _followed(work: _Assembly, index: ImageIndex) -> list[tuple[Descriptor, Descriptor]]:
    """The attestations and artifacts whose image got another digest, each with its new descriptor."""
    names = {str(digest) for digest in work.images}
    affected: list[Descriptor] = []
    pending = [entry for entry in index.manifests if entry.digest in work.graph.artifacts]
    # What refers to an artifact that changes will change too.
    while found := [entry for entry in pending if _names_of(work, entry) & names]:
        affected += found
        names |= {str(entry.digest) for entry in found}
        pending = [entry for entry in pending if entry not in found]
    for entry in affected:
        work.fetch(entry)
    followed = follow_all(affected, work.images, work.scratch, work.scratch)
    work.manifests += [each.plain for each in followed]
    return list(zip(affected, followed, strict=True))


def _names_of(work: _Assembly, entry: Descriptor) -> set[str]:
    """What an attestation or artifact refers to: by its annotation, and by its manifest's subject."""
    subject = work.graph.artifacts[entry.digest].subject
    named = entry.annotations.get(REFERENCE_DIGEST) if is_attestation(entry) else None
    return {*([named] if named else []), *([str(subject.digest)] if subject else [])}


def _entry(work: _Assembly, entry: Descriptor, followed: Sequence[tuple[Descriptor, Descriptor]]) -> Descriptor | None:
    """An entry of the index as it stands in the new one; None for a SOCI index that was replaced."""
    if entry.digest in work.images:
        return work.images[entry.digest]
    if is_soci_index(entry):
        return None if entry.annotations.get(IMAGE_MANIFEST_DIGEST) in work.images else entry
    return next((after for before, after in followed if before == entry), entry)


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
