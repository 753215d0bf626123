"""Where the image came from, attached to its index once, and signed where a key is configured."""

from collections.abc import Sequence

from prefect import task

from soci_pipeline._version import __version__
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.publish.provenance import Origin, attach
from soci_pipeline.publish.registries import connection_to
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.publish.signature import configured_signer, sign
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.settings import Settings
from soci_pipeline.soci.index.records import PlatformImage
from tasks.aws import ecr_session
from tasks.policies import STEP
from tasks.run_log import run_log

_SHOWN = {"context", "dockerfile", "target", "builder", "toolchain", "soci", "attestations", "platforms"}


@task(name="provenance", task_run_name="provenance", **STEP)
def attest(
    request: PublishRequest,
    source: ResolvedSource,
    index: Descriptor,
    images: Sequence[PlatformImage],
    client: RegistryClient,
    settings: Settings,
) -> None:
    """A referrer of the image index; a run of the same commit finds it there and adds none."""
    with run_log():
        origin = Origin(
            source=source.url,
            ref=source.ref,
            revision=source.commit,
            parameters=request.model_dump(mode="json", include=_SHOWN),
            tools={"soci-pipeline": __version__},
        )
        attach(client, request.image.repository, index, images, origin, name=request.image.name)
        signer = configured_signer(settings.publish)
        if signer is not None:
            connection = connection_to(request.image, settings, aws=ecr_session(settings))
            sign(request.image.with_digest(index.digest), signer, connection)
