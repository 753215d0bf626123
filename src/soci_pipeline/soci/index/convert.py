"""Convert an image for lazy loading, from one OCI layout to another.

v2 adds the SOCI index's digest to the image manifest, so the image gets a new digest; the image index lists both, and
attestations are updated. v1 leaves the images unchanged; its SOCI indexes refer to them. Layers are never changed.

Each of the four steps takes the result of the previous one: read the source, plan which layers to index and how, write
the new documents (`new_images`), and release: copy what is unchanged and write ``index.json``.
"""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from soci_pipeline.log import logger
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.layout_choice import choose_roots
from soci_pipeline.oci.manifest import MAX_DEPTH
from soci_pipeline.oci.media_types import IMAGE_INDEXES, IMAGE_MANIFESTS, OCI_INDEX
from soci_pipeline.oci.platform import Platform
from soci_pipeline.oci.platform_selection import (
    SelectedLayout,
    check_complete,
    incomplete_platforms,
    select_platforms,
)
from soci_pipeline.soci.index.layers import LayerIndexer
from soci_pipeline.soci.index.new_images import ConversionPlan, Made, Recipe, make
from soci_pipeline.soci.index.records import PlatformImage, SociOptions
from soci_pipeline.soci.index.source_images import SourceLayout, read_layout
from soci_pipeline.soci.limits import DEFAULT_LIMITS, Limits
from soci_pipeline.soci.ztoc.build_tool import BUILD_TOOL
from soci_pipeline.soci.ztoc.store import ZtocStore


@dataclass(frozen=True)
class Conversion:
    """The result: ``root`` is the image index in ``layout``; ``images`` has one record for each chosen image."""

    layout: Layout
    root: Descriptor
    images: tuple[PlatformImage, ...]


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
    """Index the images of a layout for ``platforms`` (default: all).

    Images for other platforms stay in the image index unchanged. They are removed, together with the manifests that
    refer to them, if the source does not contain all their blobs or if ``drop_others`` is set.

    The source's ``index.json`` may list one image index or several images; the result's lists one image index. ``ref``
    chooses one of several unrelated images by name or digest. If no layer can be indexed, the images stay unchanged.
    ``build_tool`` is written into zTOCs and SOCI indexes, so it affects their digests. ``jobs`` is the number of layers
    indexed in parallel. ``prefetch_files`` are paths in the image; the topmost copy of each is prefetched.

    Raises `InvalidInput` for a source without images, with two different images for one platform or without an image
    for a chosen one, `DamagedContent` for a corrupt layer, and `HostileArchive` for a layer that exceeds ``limits`` or
    a source with links. On failure, a destination that did not exist before is removed.
    """
    chosen, name = _selected(source, platforms, ref, drop_others=drop_others)
    plan = ConversionPlan(
        source=read_layout(chosen, platforms, ref=name),
        recipe=Recipe(options, build_tool, disable_xattrs, tuple(prefetch_files)),
    )
    with _new_layout(destination) as target:
        indexer = LayerIndexer(
            source=chosen,
            target=target,
            span_size=options.span_size,
            min_layer_size=options.min_layer_size,
            build_tool=build_tool,
            keep_tocs=bool(prefetch_files),
            ztocs=ztocs,
            limits=limits,
        )
        made = make(plan, indexer.index(plan.layers, jobs=jobs), target)
        return _release(plan, made, target)


def _selected(
    source: Layout, platforms: Sequence[Platform] | None, ref: str | None, *, drop_others: bool
) -> tuple[Layout, str | None]:
    """Return the source without excluded platforms, and the ``ref`` that still has to be applied to it."""
    roots = choose_roots(source.roots(), ref, f"layout {source.path}")
    if (inner := _unwrapped(source, roots)) != roots:
        source, roots, ref = SelectedLayout(source, inner, ()), inner, None
    if platforms is not None:
        return select_platforms(source, roots, platforms, drop_complete=drop_others), None
    for image in incomplete_platforms(source, roots):
        if image.missing != image.descriptor.digest:
            check_complete(source, roots)
        logger().warning(
            "%s is listed in layout %s and was not saved, so a registry would reject the result; choose the other "
            "platforms with --platform, or save the image again with all of them",
            image,
            source.path,
        )
    return source, ref


def _unwrapped(source: Layout, roots: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """Unwrap an index that lists only one image index, as written by `ctr image import --index-name`."""
    for _ in range(MAX_DEPTH):
        if len(roots) != 1 or roots[0].media_type not in IMAGE_INDEXES or not source.has(roots[0]):
            break
        children = source.read_document(roots[0]).children
        if len(children) != 1 or children[0].media_type not in IMAGE_INDEXES:
            break
        roots = children
    return tuple(roots)


@contextlib.contextmanager
def _new_layout(destination: Path) -> Iterator[Layout]:
    """Create the destination layout; remove it if the block raises, unless it existed before."""
    fresh = not destination.exists()
    try:
        yield Layout.create(destination)
    except BaseException:
        if fresh:
            shutil.rmtree(destination, ignore_errors=True)
        raise


def _release(plan: ConversionPlan, made: Made, target: Layout) -> Conversion:
    """Copy what the result refers to, then write ``index.json``, so that it never lists incomplete images."""
    for path in dict.fromkeys(plan.recipe.prefetch_files):
        if path not in made.prefetched:
            logger().warning("%s will not be prefetched: the indexed layers have no regular file there", path)
    _take_over(plan.source, target, [made.root, *(image.soci_index for image in made.images if image.soci_index)])
    target.set_roots([made.root])
    return Conversion(layout=target, root=made.root, images=made.images)


def _take_over(source: SourceLayout, target: Layout, roots: Sequence[Descriptor]) -> None:
    """Copy unchanged blobs that the result refers to; foreign layers and unsaved images may be missing."""
    pending = list(roots)
    seen: set[Digest] = set()
    while pending:
        node = pending.pop()
        if node.digest in seen:
            continue
        seen.add(node.digest)
        if not target.has(node):
            if not source.layout.has(node) and (node.may_be_foreign or node.media_type in IMAGE_MANIFESTS):
                continue
            target.take_over(source.layout, node)
        if node.media_type in IMAGE_MANIFESTS or node.media_type == OCI_INDEX:
            pending += target.read_document(node).children
