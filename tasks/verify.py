"""The gate: what was pushed is read back before any tag moves."""

from collections.abc import Sequence
from functools import partial

from prefect import task

from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.steps import verified
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.verification.mode import VerifyMode
from soci_pipeline.verification.verify import VerificationReport
from tasks.artifacts import show_verification
from tasks.policies import STEP
from tasks.run_log import run_log


@task(name="verify", task_run_name="verify", **STEP)
def verify(
    client: RegistryClient,
    image: ImageReference,
    reference: str | Digest,
    mode: VerifyMode,
    platforms: Sequence[Platform] | None = None,
) -> VerificationReport:
    """The report; raises `VerificationFailed` with every finding where there is one."""
    with run_log():
        show = partial(show_verification, image, reference)
        return verified(client, image, reference, mode, platforms, show=show)
