"""ECR's addresses and tokens: read from the host, fetched when needed, shared, and replaced before they end."""

import threading
import time
from datetime import UTC, datetime

import boto3
import pytest

from soci_pipeline.aws.ecr import EcrCredentials, EcrRegistry
from soci_pipeline.errors import CredentialsRefused, InvalidInput
from tests.support.aws import REGION, REGISTRY, answering, authorization, refusal

_NOON = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (REGISTRY, ("eu-west-1", "123456789012")),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", ("cn-north-1", "123456789012")),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", ("us-gov-west-1", "123456789012")),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", ("eu-west-1", "123456789012")),
        ("123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov", ("us-iso-east-1", "123456789012")),
        ("123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov", ("us-isob-east-1", "123456789012")),
        ("123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu", ("eusc-de-east-1", "123456789012")),
        ("123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", ("cn-north-1", "123456789012")),
        ("public.ecr.aws", ("us-east-1", None)),
    ],
)
def test_region_and_account_are_read_from_the_host(host: str, expected: tuple[str, str | None]) -> None:
    place = EcrRegistry.parse(host)
    assert place is not None
    assert (place.region, place.account) == expected


@pytest.mark.parametrize(
    "host",
    [
        "docker.io",
        "localhost:5000",
        f"{REGISTRY}.example.com",
        "12345.dkr.ecr.eu-west-1.amazonaws.com",
        f"{REGISTRY}:443",
        f"{REGISTRY}\n",
        "x.public.ecr.aws",
    ],
)
def test_other_hosts_are_not_ecr_and_get_no_credentials(host: str) -> None:
    assert EcrRegistry.parse(host) is None
    assert EcrCredentials().credentials_for(host) is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com", "amazonaws.com.cn"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn", "amazonaws.com"),
        ("123456789012.dkr-ecr.us-iso-east-1.on.aws", "There are no private registries in that partition."),
        ("123456789012.dkr.ecr.eu.amazonaws.com", "not an AWS region"),
    ],
)
def test_a_region_under_the_domain_of_another_partition_is_refused(host: str, expected: str) -> None:
    with pytest.raises(InvalidInput, match=expected):
        EcrRegistry.parse(host)


def test_a_token_is_kept_until_shortly_before_its_end_and_then_replaced(credentials: None) -> None:
    clock = [_NOON]
    with answering(
        authorization(expires_at=_NOON + 12 * 3600), authorization("another", expires_at=_NOON + 24 * 3600)
    ) as ecr:
        provider = EcrCredentials(endpoint_url=ecr.url, clock=lambda: clock[0])
        first = provider.credentials_for(REGISTRY)
        assert first is not None
        assert first.password is not None
        assert (first.username, first.password.get_secret_value()) == ("AWS", "a-password")
        assert "a-password" not in repr(first)
        clock[0] = _NOON + 11 * 3600
        assert provider.credentials_for(REGISTRY) == first
        assert ecr.asked == ["GetAuthorizationToken"]
        clock[0] = _NOON + 11.6 * 3600
        assert provider.credentials_for(REGISTRY) != first
        assert ecr.asked == ["GetAuthorizationToken"] * 2


def test_no_token_is_asked_for_before_one_is_needed(credentials: None) -> None:
    with answering(authorization()) as ecr:
        EcrCredentials(endpoint_url=ecr.url)
        assert ecr.asked == []


def test_a_refused_token_can_be_forgotten_and_is_asked_for_again(credentials: None) -> None:
    with answering(authorization()) as ecr:
        provider = EcrCredentials(endpoint_url=ecr.url)
        provider.credentials_for(REGISTRY)
        provider.forget(REGISTRY)
        provider.credentials_for(REGISTRY)
        assert len(ecr.asked) == 2


def test_many_threads_share_one_token(credentials: None) -> None:
    with answering(authorization()) as ecr:
        provider = EcrCredentials(endpoint_url=ecr.url)
        threads = [threading.Thread(target=provider.credentials_for, args=(REGISTRY,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ecr.asked) == 1


def test_throttling_is_waited_out(credentials: None) -> None:
    with answering(refusal("ThrottlingException", "Rate exceeded"), authorization()) as ecr:
        assert EcrCredentials(endpoint_url=ecr.url).credentials_for(REGISTRY) is not None
        assert ecr.asked == ["GetAuthorizationToken"] * 2


def test_a_token_that_is_not_base64_is_refused(credentials: None) -> None:
    broken = (200, {"authorizationData": [{"authorizationToken": "%%%", "expiresAt": time.time()}]})
    with answering(broken) as ecr, pytest.raises(CredentialsRefused, match="invalid token"):
        EcrCredentials(endpoint_url=ecr.url).credentials_for(REGISTRY)


def test_the_emulated_service_hands_out_a_user_and_password(aws: str) -> None:
    found = EcrCredentials().credentials_for(REGISTRY)
    assert found is not None
    assert found.username == "AWS"


def test_a_session_that_is_handed_in_signs_the_calls(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(CredentialsRefused, match="no AWS credentials"):
        EcrCredentials().credentials_for(REGISTRY)
    chosen = boto3.Session(aws_access_key_id="AKIAEXAMPLEEXAMPLE00", aws_secret_access_key="x", region_name=REGION)
    assert EcrCredentials(chosen).credentials_for(REGISTRY) is not None
