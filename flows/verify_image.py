"""Verify an image that is published: the gate of a publication, at any time afterwards."""

from typing import Literal

from prefect import flow

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.request import VerifyMode
from soci_pipeline.publish.verification.verify import VerificationReport
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import Settings
from tasks.aws import connected
from tasks.run_log import run_log
from tasks.verify import verify


@flow(name="verify-image", flow_run_name="{reference}")
def verify_image(
    reference: str, mode: Literal["sample", "all"] = "sample", platforms: list[str] | None = None
) -> VerificationReport:
    """Read an image through its SOCI indexes; the run fails with every finding.

    Args:
        reference: The image, with a tag or a digest.
        mode: Some spans of each layer, or every byte.
        platforms: What must be there; whatever is there where nothing is said.

    """
    image = ImageReference.parse(reference)
    target = image.target
    if target is None:
        raise InvalidInput(f"{image} has neither tag nor digest", advice="Write it as registry/repository:tag.")
    wanted = None if platforms is None else [Platform.parse(name) for name in platforms]
    with run_log(), connected(image, Settings.from_environment()) as client:
        return verify(client, image.repository, target, VerifyMode(mode), wanted)
