"""Verify an image that is published: the gate of a publication, at any time afterwards."""

from prefect import flow

from soci_pipeline.settings import Settings
from soci_pipeline.verification.parameters import VerifyParameters
from soci_pipeline.verification.verify import VerificationReport
from tasks.aws import connected
from tasks.failures import explained
from tasks.form import form
from tasks.run_log import run_log
from tasks.run_names import named_after
from tasks.verify import verify


@flow(name="verify-image", flow_run_name=named_after("reference"))
@explained
@form(VerifyParameters)
def verify_image(request: VerifyParameters) -> VerificationReport:
    """Read an image through its SOCI indexes; the run fails with every finding."""
    image = request.reference
    with run_log(), connected(image, Settings.from_environment()) as client:
        return verify(client, image, request.target, request.mode, request.platforms)
