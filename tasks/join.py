"""The join: the branches' images in one image index, pushed by its digest."""

from collections.abc import Sequence

from prefect import task

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.annotations import index_annotations
from soci_pipeline.publish.source import Source
from soci_pipeline.publish.steps import push_joined
from soci_pipeline.publish.target import Target
from soci_pipeline.soci.index.records import PlatformImage
from tasks.policies import STEP
from tasks.run_log import run_log


@task(name="join", task_run_name="join", **STEP)
def join(target: Target, source: Source, images: Sequence[PlatformImage], platforms: Sequence[Platform]) -> Descriptor:
    """Every digest of the branches is read back from the registry first; what does not fit refuses the join."""
    with run_log():
        return push_joined(target, index_annotations(source.commit), images, platforms)
