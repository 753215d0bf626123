"""What AWS refuses becomes an error that names the action and the next step, before anything was made."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from soci_pipeline.aws.client import AwsRefused, AwsUnreachable, calling, config, session
from soci_pipeline.aws.ecr import EcrCredentials
from soci_pipeline.aws.identity import caller
from soci_pipeline.aws.repository import NewRepository, ensure_repository
from soci_pipeline.aws.secrets import read_secret
from soci_pipeline.errors import CredentialsRefused, InvalidInput, ToolMissing
from tests.support.aws import REGION, REGISTRY, answering, refusal
from tests.support.strange import strange


@pytest.fixture(autouse=True)
def one_attempt(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def test_a_denied_call_names_the_action_that_is_missing() -> None:
    with answering(refusal("AccessDeniedException")) as ecr:
        with pytest.raises(CredentialsRefused, match="AWS does not allow ecr:DescribeRepositories") as caught:
            ensure_repository(REGISTRY, "team/app", create=NewRepository(), endpoint_url=ecr.url)
        assert ecr.asked == ["DescribeRepositories"]
    assert "Add ecr:DescribeRepositories" in str(caught.value.advice)


def test_the_action_in_the_message_of_aws_counts_for_more_than_the_one_that_was_called() -> None:
    said = "User: arn:aws:sts::123456789012:assumed-role/x is not authorized to perform: kms:CreateGrant on resource: y"
    missing = refusal("RepositoryNotFoundException")
    with (
        answering(missing, refusal("AccessDeniedException", said)) as ecr,
        pytest.raises(CredentialsRefused, match="kms:CreateGrant") as caught,
    ):
        ensure_repository(REGISTRY, "team/app", create=NewRepository(kms_key="aws/ecr"), endpoint_url=ecr.url)
    assert "Add kms:CreateGrant" in str(caught.value.advice)


@pytest.mark.parametrize("code", ["ExpiredTokenException", "ExpiredToken", "RequestExpired"])
def test_expired_credentials_are_said_to_be_expired(code: str) -> None:
    with answering(refusal(code)) as ecr:
        with pytest.raises(CredentialsRefused, match="have expired") as caught:
            ensure_repository(REGISTRY, "team/app", create=NewRepository(), endpoint_url=ecr.url)
        assert ecr.asked == ["DescribeRepositories"]
    assert "Renew" in str(caught.value.advice)


def test_unknown_credentials_are_told_from_a_missing_permission() -> None:
    with (
        answering(refusal("UnrecognizedClientException")) as ecr,
        pytest.raises(CredentialsRefused, match="does not recognise the credentials"),
    ):
        ensure_repository(REGISTRY, "team/app", endpoint_url=ecr.url)


def test_without_any_credentials_the_advice_says_where_to_put_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(CredentialsRefused, match="no AWS credentials found for ecr:DescribeRepositories") as caught:
        ensure_repository(REGISTRY, "team/app")
    assert "Give the worker a role" in str(caught.value.advice)


def test_a_profile_that_is_not_there_is_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(CredentialsRefused, match="no AWS credentials"):
        ensure_repository(REGISTRY, "team/app")


def test_a_profile_of_a_role_whose_source_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    config = tmp_path / "config"
    config.write_text("[profile build]\nrole_arn = arn:aws:iam::123456789012:role/build\nsource_profile = gone\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "build")
    with pytest.raises(InvalidInput, match='source_profile "gone"') as caught:
        ensure_repository(REGISTRY, "team/app")
    assert "AWS_PROFILE" in str(caught.value.advice)


def test_a_region_without_the_service_is_named() -> None:
    with pytest.raises(InvalidInput, match="ecr does not answer in the region eu-nowhere-9"):
        ensure_repository(
            "123456789012.dkr.ecr.eu-nowhere-9.amazonaws.com", "team/app", endpoint_url="http://127.0.0.1:9"
        )


def test_nobody_listening_in_a_region_that_has_the_service_is_temporary() -> None:
    with pytest.raises(AwsUnreachable) as caught:
        ensure_repository(REGISTRY, "team/app", endpoint_url="http://127.0.0.1:9")
    assert caught.value.temporary


@pytest.mark.parametrize(
    ("code", "temporary"),
    [("InvalidParameterException", False), ("ThrottlingException", True), ("ServerException", True)],
)
def test_another_refusal_keeps_the_code_of_aws_and_says_whether_it_passes(code: str, temporary: bool) -> None:
    with answering(refusal(code)) as ecr, pytest.raises(AwsRefused) as caught:
        ensure_repository(REGISTRY, "team/app", endpoint_url=ecr.url)
    assert (caught.value.code, caught.value.temporary) == (code, temporary)


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_REGION": "eu-west-1"}, "eu-west-1"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-north-1"}, "eu-north-1"),
        ({"AWS_REGION": ""}, None),
        ({}, None),
    ],
)
def test_the_region_of_the_other_sdks_counts_where_boto3_finds_none(
    variables: dict[str, str], region: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert session().region_name == region


def test_without_boto3_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ToolMissing, match="boto3") as caught:
        session()
    assert "soci-pipeline[aws]" in str(caught.value.advice)


def test_without_boto3_a_call_names_the_extra_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("boto3", "botocore"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ToolMissing, match="boto3"), calling("ecr:DescribeRepositories", on=REGISTRY):
        session()


@pytest.mark.parametrize("named", [None, "nobody"])
def test_a_session_of_a_profile_that_is_not_there_names_it(named: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_PROFILE", "nobody" if named is None else "")
    with pytest.raises(CredentialsRefused, match=r"no AWS credentials.*nobody") as caught:
        session(named)
    assert "AWS_PROFILE" in str(caught.value.advice)


def test_a_configuration_of_aws_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "config"
    broken.write_text("region = eu-west-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(broken))
    with pytest.raises(InvalidInput, match=str(broken)):
        session()


@pytest.mark.parametrize(
    "ask",
    [
        lambda: EcrCredentials().credentials_for(REGISTRY),
        lambda: read_secret("arn:aws:secretsmanager:eu-west-1:123456789012:secret:npm"),
    ],
)
def test_a_missing_profile_is_an_error_of_ours_whatever_is_asked_for(
    ask: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(CredentialsRefused, match="nobody"):
        ask()


def test_half_of_a_key_is_no_credentials_for_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(CredentialsRefused, match="secretsmanager:GetSecretValue"):
        read_secret("arn:aws:secretsmanager:eu-west-1:123456789012:secret:npm")


@pytest.mark.parametrize("attempts", ["many", "0", "-1", "1.5", "99999"])
def test_a_number_of_attempts_that_is_none_is_named(attempts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", attempts)
    with pytest.raises(InvalidInput, match=f"AWS_MAX_ATTEMPTS must be a positive integer, not '{attempts}'"):
        config()
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "")
    assert vars(config())["_user_provided_options"]["retries"] == {"mode": "standard", "total_max_attempts": 5}


def test_a_page_in_the_place_of_an_answer_is_no_answer_and_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def page(_: Request) -> Response:
        return Response("<!doctype html><title>proxy: secret-page</title>", 500, media_type="text/html")

    with strange(page) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
        with pytest.raises(AwsUnreachable, match="the response is not valid for AWS") as caught:
            caller(region=REGION)
    assert "secret-page" not in str(caught.value)
    assert caught.value.__cause__ is None
