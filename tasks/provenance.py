"""Provenance attached to the image index once, and signed if a key or token is configured."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import task

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.publish.source import Source
from soci_pipeline.publish.steps import attest_commit, sign_where_configured
from soci_pipeline.publish.target import Target
from soci_pipeline.settings import Settings
from soci_pipeline.soci.index.records import PlatformImage
from tasks.aws import ecr_session
from tasks.policies import STEP
from tasks.run_log import run_log


@task(name="provenance", task_run_name="provenance", **STEP)
def attest(
    target: Target,
    source: Source,
    index: Descriptor,
    images: Sequence[PlatformImage],
    settings: Settings,
    *,
    parameters: Mapping[str, Any],
) -> None:
    """A referrer of the image index; a run of the same commit finds it there and adds none."""
    with run_log():
        attest_commit(target, source.commit, index, images, parameters=parameters)
        if settings.publish.signing_key is not None or settings.publish.signing_token:
            sign_where_configured(target, index, settings, aws=ecr_session(settings))
