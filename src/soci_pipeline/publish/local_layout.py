"""A publication that stops before the push and writes the joined, indexed image as an OCI layout."""

import shutil
import time
from pathlib import Path

from soci_pipeline.full_disk import full_disk_reported
from soci_pipeline.log import logger
from soci_pipeline.oci.annotations import REF_NAME
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.media_types import IMAGE_INDEXES
from soci_pipeline.publish import branch
from soci_pipeline.publish.branch import Branch
from soci_pipeline.publish.join import join
from soci_pipeline.publish.local_branch import imported_image, indexed_image
from soci_pipeline.publish.local_run import Prepared, branches, prepared, with_reasons
from soci_pipeline.publish.output_folder import check_output, output_exists
from soci_pipeline.publish.records import PublicationResult, PublishedImage
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.settings import Settings
from soci_pipeline.soci.index.records import PlatformImage
from soci_pipeline.text import counted


def _claim(folder: Path, source: str) -> None:
    """Claim the folder for this run; raise `InvalidInput` if files appeared in it while images were built."""
    check_output(folder, source)
    with full_disk_reported(folder):
        folder.mkdir(exist_ok=True)
        try:
            # Another run creates this first as well: only one of them succeeds.
            (folder / "blobs").mkdir()
        except FileExistsError as error:
            raise output_exists(folder) from error


def publish_to_folder(
    request: PublishRequest, settings: Settings, output: Path, *, all_platforms: bool
) -> PublicationResult:
    """Build, index and join in this process, and write the image index as a layout to ``output``.

    No registry is contacted, except for a prebuilt image. Raises the same errors as `publish_here`.
    """
    begun = time.monotonic()
    check_output(output, request.source)
    with prepared(request, settings, all_platforms=all_platforms, needs_tags=False) as (ready, folder):
        layout = Layout.create(folder / "joined")
        images = tuple(_add(layout, work, ready) for work in branches(ready, folder, settings))
        index = join(images, annotations=ready.annotations, read=layout.read, platforms=ready.request.platforms)
        root = layout.add_document(index)
        layout.set_roots([_named(root, ready)])
        _claim(output, request.source)
        try:
            _write(layout, root, output)
        except BaseException:
            shutil.rmtree(output, ignore_errors=True)
            raise
    logger().info("joined %s as %s in %s", counted(len(images), "platform"), root.digest, output)
    published = PublishedImage(
        reference=str(request.image.with_digest(root.digest)), index=root.digest, platforms=images
    )
    result = PublicationResult.of(published, None, commit=ready.commit, seconds=time.monotonic() - begun)
    return with_reasons(result.model_copy(update={"layout": str(output)}), ready)


def _named(root: Descriptor, ready: Prepared) -> Descriptor:
    tags = ready.names.tags
    return root.annotated(annotations={REF_NAME: tags[0]}) if tags else root


def _add(layout: Layout, work: Branch, ready: Prepared) -> PlatformImage:
    """Build and index one platform, and copy its image into the common layout."""
    conversion = indexed_image(work, imported_image(work, ready.credentials), None)
    image = branch.image_of(work, conversion)
    source = conversion.layout
    for root in filter(None, (image.manifest, *image.attestations, image.soci_index)):
        for node in source.walk(root):
            if node.media_type not in IMAGE_INDEXES and not node.may_be_foreign:
                layout.link_from(source, node)
    return image.model_copy(update={"timings": dict(work.timings)})


def _write(layout: Layout, root: Descriptor, output: Path) -> None:
    """Copy the finished layout out of the run's folder; ``index.json`` is written last."""
    made = Layout.create(output)
    for name in layout.roots():
        for node in layout.walk(name):
            made.link_from(layout, node)
        for other in layout.referrers(root):
            for node in layout.walk(other):
                made.link_from(layout, node)
    made.set_roots(layout.roots())
