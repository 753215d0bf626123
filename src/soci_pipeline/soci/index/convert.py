"""Turns an image into one that loads lazily: an OCI layout in, an OCI layout out.

v2 puts the SOCI index's digest into the image manifest, so the image gets a new digest; the image index lists both, and
attestations follow. v1 leaves every image as it is; its SOCI indexes refer to the images. Layers are never changed.

Four steps, each a function of what the step before it returned: read the source, plan which layers to index and how,
make what is new (`new_images`), and release: bring over what stays, and list the result.
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
    """The result: ``root`` is the image index in ``layout``; one record for each image that was looked at."""

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


def _release(plan: ConversionPlan, made: Made, target: Layout) -> Conversion:
    """Bring over what the result refers to, and list it; nothing is listed before it is whole."""
    for path in dict.fromkeys(plan.recipe.prefetch_files):
        if path not in made.prefetched:
            logger().warning("%s will not be prefetched: the indexed layers have no regular file there", path)
    _take_over(plan.source, target, [made.root, *(image.soci_index for image in made.images if image.soci_index)])
    target.set_roots([made.root])
    return Conversion(layout=target, root=made.root, images=made.images)


def _take_over(source: SourceLayout, target: Layout, roots: Sequence[Descriptor]) -> None:
    """Bring what the result refers to and was not made anew; foreign layers and images not saved may be nowhere."""
    pending = list(roots)
    seen: set[Digest] = set()
    while pending:
        node = pending.pop()
        if node.digest in seen:
            continue
        seen.add(node.digest)
        if not target.has(node):
            if not source.layout.has(node) and (node.may_be_elsewhere or node.media_type in IMAGE_MANIFESTS):
                continue
            target.take_over(source.layout, node)
        if node.media_type in IMAGE_MANIFESTS or node.media_type == OCI_INDEX:
            pending += target.read_document(node).children
