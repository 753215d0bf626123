"""The look at what is published already, which lets a schedule pass over a night in which nothing has changed."""

from collections.abc import Sequence

from prefect import task
from prefect.artifacts import create_markdown_artifact

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.publish.records import PublishedImage
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.publish.same_images import compare
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.index.records import PlatformImage
from tasks.artifacts import key_of, make_artifact
from tasks.policies import STEP
from tasks.run_log import run_log


@task(name="compare", task_run_name="compare", **STEP)
def find_same(
    request: PublishRequest, index: Descriptor, images: Sequence[PlatformImage], client: RegistryClient
) -> PublishedImage | None:
    """What is there already, where that was asked for and its images are the same as the new ones; else None."""
    tag = request.unless_same_as
    if tag is None:
        return None
    with run_log() as log:
        found = compare(client, request.image.repository, index.digest, tag)
        there = found.there
        if there is None or found.difference is not None:
            log.info("published, since %s", found.difference)
            return None
        log.info("unchanged: %s has the same images, so nothing is published", request.image.with_tag(tag))
        make_artifact(
            create_markdown_artifact,
            markdown=f"# Unchanged\n\n`{request.image.with_tag(tag)}` at `{there}` has the same layers, "
            "settings and zTOCs as this build on every platform. Nothing was published, and no tag was written.\n",
            key=key_of("publication", request.image),
            description=f"{request.image} is unchanged at {there}",
        )
        reference = str(request.image.with_digest(there))
        return PublishedImage(reference=reference, index=there, platforms=tuple(images), same_as=tag)
