"""Compare with what is already published, so that a schedule can skip a night without changes."""

from collections.abc import Sequence

from prefect import task
from prefect.artifacts import create_markdown_artifact

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.publish.records import PublishedImage
from soci_pipeline.publish.steps import same_image
from soci_pipeline.publish.target import Target
from soci_pipeline.soci.index.records import PlatformImage
from tasks.artifacts import key_of, make_artifact
from tasks.policies import STEP
from tasks.run_log import run_log


@task(name="compare", task_run_name="compare", **STEP)
def find_same(target: Target, tag: str, index: Descriptor, images: Sequence[PlatformImage]) -> PublishedImage | None:
    """What is under ``tag`` already, where its images are the same as the new ones; else None."""
    with run_log():
        same = same_image(target, tag, index, images)
        if same is None:
            return None
        image = target.image
        make_artifact(
            create_markdown_artifact,
            markdown=f"# Unchanged\n\n`{image.with_tag(tag)}` at `{same.index}` has the same layers, "
            "settings and zTOCs as this build on every platform. Nothing was published, and no tag was written.\n",
            key=key_of("publication", image),
            description=f"{image} is unchanged at {same.index}",
        )
        return same
