"""Checks of the target before anything is built: the registry, the credentials and the tags."""

from prefect import task

from soci_pipeline.publish.source import Source
from soci_pipeline.publish.steps import checked_target
from soci_pipeline.publish.tag_names import TagNames
from soci_pipeline.publish.target import Target
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import Settings
from tasks.aws import ecr_session
from tasks.policies import STEP
from tasks.run_log import run_log
from tasks.source import ancestry_of


@task(name="check target", task_run_name="check target", **STEP)
def check_target(
    image: ImageReference,
    names: TagNames,
    source: Source,
    client: RegistryClient,
    settings: Settings,
    *,
    force: bool = False,
) -> Target:
    """The target, once it is known that the registry lets this run push, and that the tags may move."""
    with run_log() as log:
        target = checked_target(
            image,
            names,
            source.commit.commit,
            client,
            settings,
            ancestry=ancestry_of(source),
            aws=ecr_session(settings),
            force=force,
        )
        log.info("%s accepts pushes; the tags will be %s", image, ", ".join(names.tags))
        return target
