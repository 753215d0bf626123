"""Secrets come from Secrets Manager into files that only their owner reads, and the files go again."""

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from soci_pipeline.aws.secrets import is_secret_arn, read_secret
from soci_pipeline.errors import InvalidInput

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:npm-token-AbCdEf"


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLEEXAMPLE00")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    with mock_aws():
        yield


def _made(name: str, **value: object) -> str:
    client = boto3.client("secretsmanager", region_name="eu-west-1")
    return str(client.create_secret(Name=name, **value)["ARN"])


def test_an_arn_is_told_from_other_texts() -> None:
    assert is_secret_arn(ARN)
    assert is_secret_arn(ARN.replace("arn:aws:", "arn:aws-cn:"))
    # The names that AWS gives to secrets which it manages for RDS, and those of EventBridge's connections.
    assert is_secret_arn(ARN.replace("npm-token", "rds!db-1"))
    assert is_secret_arn(ARN.replace("npm-token", "events!connection/shop_+=.@-"))
    for other in ("my-block", ARN + "\n", "arn:aws:s3:::bucket", ARN.replace("123456789012", "1"), ARN + "ä"):
        assert not is_secret_arn(other)


def test_a_text_and_a_binary_secret_are_read_as_bytes(emulated: None) -> None:
    assert read_secret(_made("a", SecretString="pässword")) == "pässword".encode()
    assert read_secret(_made("b", SecretBinary=b"\x00\xff")) == b"\x00\xff"


def test_a_missing_secret_is_named(emulated: None) -> None:
    with pytest.raises(InvalidInput, match="npm-token"):
        read_secret(ARN)


def test_what_is_not_an_arn_is_refused_before_any_call() -> None:
    with pytest.raises(InvalidInput, match="not a valid secret ARN"):
        read_secret("npm-token")
