"""The join: the branches' images under one image index, pushed by its digest."""

from collections.abc import Sequence

from prefect import task

from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.publish.annotations import index_annotations
from soci_pipeline.publish.collect import reader
from soci_pipeline.publish.join import join as join_images
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.index.records import PlatformImage
from tasks.policies import STEP
from tasks.run_log import run_log


@task(name="join", task_run_name="join", **STEP)
def join(
    request: PublishRequest, source: ResolvedSource, images: Sequence[PlatformImage], client: RegistryClient
) -> Descriptor:
    """Every digest of the branches is read back from the registry first; what does not fit refuses the join."""
    with run_log() as log:
        repository = request.image.repository
        index = join_images(
            images,
            annotations=index_annotations(source),
            read=reader(client, repository),
            platforms=request.platforms,
        )
        found = index.descriptor
        client.manifests.put(repository, found.digest, index.encode(), index.media_type)
        log.info("joined %d platforms as %s@%s", len(images), request.image, found.digest)
        return found
