"""The gate: what was pushed is read back before any tag moves."""

from collections.abc import Sequence

from prefect import task

from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.verification.mode import VerifyMode
from soci_pipeline.verification.verify import VerificationReport
from soci_pipeline.verification.verify import verify as verify_image
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
    with run_log() as log:
        report = verify_image(client, image.repository, reference, mode=mode, platforms=platforms)
        show_verification(image, reference, report)
        report.raise_for_findings(f"{image.name} at {reference}")
        log.info("verified: %s", report.checked_in_words())
        return report
