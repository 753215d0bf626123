"""AWS credentials from a block of prefect-aws: for ECR by the machine's settings, for CodeCommit by the parameters."""

from uuid import uuid4

import pytest
from prefect.blocks.system import Secret
from prefect_aws import AwsCredentials
from pydantic import SecretStr

from soci_pipeline.errors import InvalidInput
from soci_pipeline.settings import EcrSettings, Settings
from tasks.aws import ecr_session
from tasks.secrets import git_credentials


@pytest.fixture
def block() -> str:
    name = f"made-{uuid4().hex[:8]}"
    keys = AwsCredentials(aws_access_key_id="AKIAFROMTHEBLOCK0000", aws_secret_access_key=SecretStr("s"))
    keys.save(name)
    return f"aws-credentials/{name}"


def _settings(place: str | None) -> Settings:
    return Settings(ecr=EcrSettings(credentials_block=place))


def test_the_block_that_the_settings_name_signs_calls_to_ecr(block: str) -> None:
    session = ecr_session(_settings(block))
    assert session is not None
    assert session.get_credentials().access_key == "AKIAFROMTHEBLOCK0000"  # type: ignore[union-attr]


def test_without_one_boto3_looks_for_itself() -> None:
    assert ecr_session(_settings(None)) is None


def test_a_block_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match="aws-credentials/nowhere"):
        ecr_session(_settings("aws-credentials/nowhere"))


def test_a_block_of_another_type_is_refused() -> None:
    name = f"made-{uuid4().hex[:8]}"
    Secret(value="s").save(name)
    with pytest.raises(InvalidInput, match="holds no AWS credentials"):
        ecr_session(_settings(f"secret/{name}"))


def test_the_same_kind_of_block_opens_a_codecommit_source(block: str) -> None:
    found = git_credentials(block)
    assert found is not None
    assert found.aws is not None
    assert found.password is None
    assert "AKIA" not in repr(found)
