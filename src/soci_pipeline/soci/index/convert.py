"""Turns an image into one that loads lazily: an OCI layout in, an OCI layout out.

v2 puts the SOCI index's digest into the image manifest, so the image gets a new digest; the image index lists both, and
attestations follow. v1 leaves every image as it is; its SOCI indexes refer to the images. Layers are never changed.
"""

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from soci_pipeline.log import logger
from soci_pipeline.oci.annotations import IMAGE_MANIFEST_DIGEST, REFERENCE_DIGEST, SOCI_INDEX_DIGEST, is_attestation
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.layout_choice import choose_roots
from soci_pipeline.oci.manifest import MAX_DEPTH, ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import (
    DOCKER_CONFIG,
    IMAGE_INDEXES,
    IMAGE_MANIFESTS,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    SOCI_INDEX_V1,
    SOCI_INDEX_V2,
    SOCI_PREFETCH,
)
from soci_pipeline.oci.platform import Platform
from soci_pipeline.oci.platform_selection import (
    SelectedLayout,
    check_complete,
    incomplete_platforms,
    select_platforms,
)
from soci_pipeline.soci.index.attestations import follow_all
from soci_pipeline.soci.index.document import CONFIG, CONFIG_TYPES, IndexedLayer, prefetch_document, soci_index
from soci_pipeline.soci.index.layers import LayerIndexer, LayerKey, layer_key
from soci_pipeline.soci.index.prefetch import prefetch_spans
from soci_pipeline.soci.index.records import IndexVersion, PlatformImage, SociOptions
from soci_pipeline.soci.index.source_images import SourceImage, in_order_of_choice, read_images
from soci_pipeline.soci.limits import DEFAULT_LIMITS, Limits
from soci_pipeline.soci.ztoc.build_tool import BUILD_TOOL
from soci_pipeline.soci.ztoc.store import ZtocStore


@dataclass(frozen=True)
class Conversion:
    """The result: ``root`` is the image index in ``layout``; one record for each image that was looked at."""

    layout: Layout
    root: Descriptor
    images: tuple[PlatformImage, ...]


@dataclass
class _Work:
    """What is being made: the children of the new image index, by their digest in the source."""

    source: Layout
    target: Layout
    options: SociOptions
    build_tool: str
    disable_xattrs: bool
    ref: str | None
    layers: dict[LayerKey, IndexedLayer]
    prefetch_files: Sequence[str] = ()
    prefetched: set[str] = field(default_factory=set)
    renamed: dict[Digest, Descriptor] = field(default_factory=dict)
    records: list[PlatformImage] = field(default_factory=list)


def convert(
    source: Layout,
    destination: Path,
    *,
    options: SociOptions,
    build_tool: str = BUILD_TOOL,
    platforms: Sequence[Platform] | None = None,
    drop_others: bool = False,
    ref: str | None = None,
    disable_xattrs: bool = False,
    prefetch_files: Sequence[str] = (),
    jobs: int = 2,
    ztocs: ZtocStore | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Conversion:
    """Index the images of a layout; ``platforms`` chooses some of them, None takes all.

    Where some are chosen, the others stay in the image index as they are; those that the source does not hold as a
    whole are left out with what belongs to them, and with ``drop_others`` so are all of them.

    The source's ``index.json`` may list an image index or images; the result's lists an image index alone. Where it
    lists images that are no part of one, ``ref`` chooses by name or digest. Where nothing can be indexed the images
    stay as they are. ``build_tool`` goes into zTOCs and SOCI indexes, and so into their digests. ``jobs`` layers are
    indexed at a time. ``prefetch_files`` are paths in the image; of each, the topmost copy is prefetched.

    Raises `InvalidInput` for a source without images, with two different ones of one platform or without a chosen one,
    `DamagedContent` for a damaged layer, `HostileArchive` for one past ``limits`` or a source with links; a destination
    that was not there before is not there then either.
    """
    source, ref = _selected(source, platforms, ref, drop_others=drop_others)
    index, images = read_images(source, platforms, ref=ref)
    with _new_layout(destination) as target:
        indexer = LayerIndexer(
            source=source,
            target=target,
            span_size=options.span_size,
            min_layer_size=options.min_layer_size,
            build_tool=build_tool,
            keep_tocs=bool(prefetch_files),
            ztocs=ztocs,
            limits=limits,
        )
        wanted = [layer for image in images if image.chosen for layer in image.manifest.layers]
        layers = indexer.index(wanted, jobs=jobs)
        work = _Work(source, target, options, build_tool, disable_xattrs, ref, layers, prefetch_files)
        make = _convert_v1 if options.version is IndexVersion.V1 else _convert_v2
        root = make(work, index, images).plain
        _warn_of_absent_files(work)
        _take_over(source, target, root, (record.soci_index for record in work.records))
        target.set_roots([root])
    return Conversion(layout=target, root=root, images=tuple(work.records))


def _selected(
    source: Layout, platforms: Sequence[Platform] | None, ref: str | None, *, drop_others: bool
) -> tuple[Layout, str | None]:
    """The source without the platforms that are left out, and what still chooses an image of it."""
    roots = choose_roots(source.roots(), ref, f"layout {source.path}")
    if (inner := _unwrapped(source, roots)) != roots:
        source, roots, ref = SelectedLayout(source, inner, ()), inner, None
    if platforms is not None:
        return select_platforms(source, roots, platforms, drop_complete=drop_others), None
    for image in incomplete_platforms(source, roots):
        if image.missing != image.descriptor.digest:
            check_complete(source, roots)
        logger().warning(
            "%s is listed in layout %s and was not saved, so a registry will reject the result; choose the other "
            "platforms with --platform, or save the image again with all of them",
            image,
            source.path,
        )
    return source, ref


def _unwrapped(source: Layout, roots: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """The image index in an index that lists nothing else, as `ctr image import --index-name` makes one."""
    for _ in range(MAX_DEPTH):
        if len(roots) != 1 or roots[0].media_type not in IMAGE_INDEXES or not source.has(roots[0]):
            break
        children = source.read_document(roots[0]).children
        if len(children) != 1 or children[0].media_type not in IMAGE_INDEXES:
            break
        roots = children
    return tuple(roots)


def _warn_of_absent_files(work: _Work) -> None:
    for path in dict.fromkeys(work.prefetch_files):
        if path not in work.prefetched:
            logger().warning("%s will not be prefetched: the indexed layers have no regular file there", path)


@contextlib.contextmanager
def _new_layout(destination: Path) -> Iterator[Layout]:
    """A layout to fill; removed again when the block fails, unless something was there before."""
    fresh = not destination.exists()
    try:
        yield Layout.create(destination)
    except BaseException:
        if fresh:
            shutil.rmtree(destination, ignore_errors=True)
        raise


def _convert_v1(work: _Work, index: ImageIndex, images: Sequence[SourceImage]) -> Descriptor:
    for image in in_order_of_choice(images):
        document = _soci_index(work, image, subject=image.descriptor)
        found = None
        if document is not None:
            found = work.target.add_document(document).annotated(artifact_type=SOCI_INDEX_V1, platform=image.platform)
        _record(work, image, image.descriptor, found, index)
    return _root(work, index)


def _convert_v2(work: _Work, index: ImageIndex, images: Sequence[SourceImage]) -> Descriptor:
    documents = {image.descriptor.digest: _soci_index(work, image) for image in images if image.chosen}
    indexed = any(documents.values())
    rewritten: dict[Digest, Descriptor] = {}
    found: dict[Digest, Descriptor | None] = {}
    for image in images:
        old = image.descriptor.digest
        rewritten[old], found[old] = _rewrite(work, image, documents.get(old), indexed=indexed)
    work.renamed = {before: after for before, after in rewritten.items() if before != after.digest}
    children = _children(work, index, images, rewritten, found)
    if children != index.manifests:
        index = index.replaced(manifests=children)
    for image in in_order_of_choice(images):
        old = image.descriptor.digest
        _record(work, image, rewritten[old], found[old], index)
    return _root(work, index)


def _soci_index(work: _Work, image: SourceImage, *, subject: Descriptor | None = None) -> ImageManifest | None:
    """The SOCI index of one image, None where none of its layers has a zTOC."""
    layers = [work.layers[layer_key(layer)] for layer in image.manifest.layers]
    # The same content may be listed under descriptors that differ; the manifest's own go into the record.
    layers = [replace(found, layer=layer) for found, layer in zip(layers, image.manifest.layers, strict=True)]
    if not any(layer.ztoc for layer in layers):
        return None
    if work.prefetch_files:
        layers = _with_prefetch(work, layers)
    work.target.add_bytes(CONFIG, CONFIG_TYPES[work.options.version])
    return soci_index(
        layers,
        version=work.options.version,
        span_size=work.options.span_size,
        build_tool=work.build_tool,
        disable_xattrs=work.disable_xattrs,
        subject=subject,
    )


def _with_prefetch(work: _Work, layers: Sequence[IndexedLayer]) -> list[IndexedLayer]:
    """The layers of one image with what to prefetch; a layer may be the topmost of a path in one image only."""
    found = prefetch_spans([layer.toc for layer in layers], work.prefetch_files)
    work.prefetched |= found.files
    for spans in found.spans:
        if spans:
            work.target.add_bytes(prefetch_document(spans), SOCI_PREFETCH)
    return [replace(layer, prefetch=spans) for layer, spans in zip(layers, found.spans, strict=True)]


def _rewrite(
    work: _Work, image: SourceImage, document: ImageManifest | None, *, indexed: bool
) -> tuple[Descriptor, Descriptor | None]:
    """The new descriptors of an image and of its SOCI index.

    Once an index is made, every image is written anew with OCI's types, as the reference does it, so that no registry
    sees both kinds in one index; an image that is already in that form keeps its digest.
    """
    manifest, old = image.manifest, image.descriptor
    soci_digest = document.descriptor.digest if document is not None else None
    annotations = dict(manifest.annotations)
    if image.chosen:
        annotations.pop(SOCI_INDEX_DIGEST, None)
    if soci_digest is not None:
        annotations[SOCI_INDEX_DIGEST] = str(soci_digest)
    config_type = OCI_CONFIG if manifest.config.media_type == DOCKER_CONFIG else manifest.config.media_type
    new = manifest.replaced(
        media_type=OCI_MANIFEST, config=manifest.config.annotated(media_type=config_type), annotations=annotations
    )
    if not indexed and new == manifest:
        return old, None
    stored = work.target.add_document(new)
    own = {key: value for key, value in old.annotations.items() if key != SOCI_INDEX_DIGEST}
    descriptor = old.annotated(
        media_type=OCI_MANIFEST, digest=stored.digest, size=stored.size, annotations=own | annotations, data=""
    )
    if document is None:
        return descriptor, None
    listed = work.target.add_document(document).annotated(
        annotations={IMAGE_MANIFEST_DIGEST: str(stored.digest)},
        platform=image.chosen,
        artifact_type=SOCI_INDEX_V2,
    )
    return descriptor, listed


def _children(
    work: _Work,
    index: ImageIndex,
    images: Sequence[SourceImage],
    rewritten: dict[Digest, Descriptor],
    found: dict[Digest, Descriptor | None],
) -> tuple[Descriptor, ...]:
    """What the new image index lists: SOCI indexes take the place of earlier ones of their image, or come last."""
    pending = {image.descriptor.digest: image for image in in_order_of_choice(images)}
    listed = {str(child.digest) for child in index.manifests}
    followed = follow_all(index.manifests, work.renamed, work.source, work.target)
    children: list[Descriptor] = []
    for child, after in zip(index.manifests, followed, strict=True):
        if child.digest in rewritten:
            children.append(rewritten[child.digest])
        elif after != child:
            children.append(after)
        elif (image := _image_of_soci_index(child, pending.values(), listed)) is not None:
            del pending[image.descriptor.digest]
            if (new := found[image.descriptor.digest]) is not None:
                children.append(new)
        else:
            children.append(_renamed(child, work.renamed))
    return (*children, *(new for digest in pending if (new := found[digest]) is not None))


def _image_of_soci_index(child: Descriptor, images: Iterable[SourceImage], listed: set[str]) -> SourceImage | None:
    """The image whose earlier SOCI index this is: the one that it names, else one of its platform if that is gone."""
    if child.artifact_type != SOCI_INDEX_V2:
        return None
    named, platform = child.annotations.get(IMAGE_MANIFEST_DIGEST), child.platform
    if named in listed or platform is None:
        return next((image for image in images if image.descriptor.digest == named), None)
    return next((image for image in images if image.platform.matches(platform)), None)


def _renamed(child: Descriptor, renamed: dict[Digest, Descriptor]) -> Descriptor:
    """A child that is kept; the SOCI index of an image that was only written anew has to name its new digest."""
    named = child.annotations.get(IMAGE_MANIFEST_DIGEST)
    new = next((str(after.digest) for before, after in renamed.items() if before == named), None)
    return child if new is None else child.annotated(annotations=child.annotations | {IMAGE_MANIFEST_DIGEST: new})


def _record(work: _Work, image: SourceImage, manifest: Descriptor, found: Descriptor | None, index: ImageIndex) -> None:
    layers = (replace(work.layers[layer_key(layer)], layer=layer) for layer in image.manifest.layers)
    attestations = (
        child
        for child in index.manifests
        if is_attestation(child) and child.annotations.get(REFERENCE_DIGEST) == manifest.digest
    )
    work.records.append(
        PlatformImage(
            platform=image.platform,
            manifest=manifest if manifest.platform else manifest.annotated(platform=image.platform),
            soci_index=found,
            soci_version=work.options.version,
            attestations=tuple(attestations),
            layers=tuple(layer.record for layer in layers),
        )
    )


def _root(work: _Work, index: ImageIndex) -> Descriptor:
    """The image index, stored; the source's own bytes where nothing in it has changed."""
    roots = choose_roots(work.source.roots(), work.ref, f"layout {work.source.path}")
    if len(roots) == 1 and roots[0].media_type == OCI_INDEX and work.source.read_document(roots[0]) == index:
        return roots[0]
    return work.target.add_document(index.replaced(media_type=OCI_INDEX))


def _take_over(source: Layout, target: Layout, root: Descriptor, more: Iterable[Descriptor | None]) -> None:
    """Bring what the result refers to and was not made anew; foreign layers and images not saved may be nowhere."""
    pending = [root, *(descriptor for descriptor in more if descriptor is not None)]
    seen: set[Digest] = set()
    while pending:
        node = pending.pop()
        if node.digest in seen:
            continue
        seen.add(node.digest)
        if not target.has(node):
            if not source.has(node) and (node.may_be_elsewhere or node.media_type in IMAGE_MANIFESTS):
                continue
            target.take_over(source, node)
        if node.media_type in IMAGE_MANIFESTS or node.media_type == OCI_INDEX:
            pending += target.read_document(node).children
