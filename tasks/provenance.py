"""Where the image came from, attached to its index once, and signed where a key is configured."""

from collections.abc import Mapping, Sequence
from typing import Any

from prefect import task

from soci_pipeline._version import __version__
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.publish.provenance import Origin, attach
from soci_pipeline.publish.registries import connection_to
from soci_pipeline.publish.signature import configured_signer, sign
from soci_pipeline.publish.source import Source
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
    image, commit = target.image, source.commit
    with run_log():
        origin = Origin(
            source=commit.url,
            ref=commit.ref,
            revision=commit.commit,
            parameters=parameters,
            tools={"soci-pipeline": __version__},
        )
        attach(target.client, image.repository, index, images, origin, name=image.name)
        signer = configured_signer(settings.publish)
        if signer is not None:
            connection = connection_to(image, settings, aws=ecr_session(settings))
            sign(image.with_digest(index.digest), signer, connection)
