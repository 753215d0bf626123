"""What a publication from this machine says before it begins."""

import pytest

from soci_pipeline.publish.local_run import warn_of_unused_block
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import Settings

VARIABLE = "SOCI_PIPELINE_ECR_CREDENTIALS_BLOCK"
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/web"


@pytest.mark.parametrize(
    ("image", "block", "warned"),
    [(ECR, "aws-credentials/publisher", True), (ECR, None, False), ("127.0.0.1:9/web", "aws-credentials/a", False)],
)
def test_a_block_for_ecr_that_only_flows_can_read_is_named_in_a_warning(
    image: str, block: str | None, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings.from_environment({} if block is None else {VARIABLE: block})
    warn_of_unused_block(ImageReference.parse(image), settings)
    assert [each.startswith(f"{VARIABLE}=aws-credentials/publisher is ignored") for each in caplog.messages] == (
        [True] if warned else []
    )
