"""The ECR provider and repositories, against an emulated control plane and against a loopback server for tokens.

The emulator's tokens are expired since 2015, so what depends on their life is shown with a server of our own.
"""

import base64
import json
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from moto import mock_aws

from soci_pipeline.aws.client import AwsRefused, AwsUnreachable
from soci_pipeline.aws.ecr import EcrCredentials, EcrRegistry, ensure_repository, tag_mutability
from soci_pipeline.errors import CredentialsRefused, InvalidInput, ToolMissing

REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLEEXAMPLE00")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def emulated(credentials: None) -> Iterator[None]:
    with mock_aws():
        yield


class FakeEcr(ThreadingHTTPServer):
    """Answers like the JSON 1.1 API of ECR with what it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.expires_at = 0.0
        self.refusal: tuple[int, str] | None = None
        self.token = base64.b64encode(b"AWS:a-password").decode()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeEcr

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(self.headers["X-Amz-Target"].rpartition(".")[2])
        status, body = (
            200,
            {"authorizationData": [{"authorizationToken": self.server.token, "expiresAt": self.server.expires_at}]},
        )
        if self.server.refusal is not None:
            status, code = self.server.refusal
            body = {"__type": code, "message": "no"}  # type: ignore[dict-item]
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""


@pytest.fixture
def fake_ecr(credentials: None) -> Iterator[FakeEcr]:
    server = FakeEcr()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (REGISTRY, ("eu-west-1", "123456789012")),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", ("cn-north-1", "123456789012")),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", ("us-gov-west-1", "123456789012")),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", ("eu-west-1", "123456789012")),
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


def test_a_token_is_kept_until_shortly_before_its_end_and_then_replaced(fake_ecr: FakeEcr) -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
    clock = [now]
    fake_ecr.expires_at = now + 12 * 3600
    provider = EcrCredentials(endpoint_url=fake_ecr.url, clock=lambda: clock[0])
    first = provider.credentials_for(REGISTRY)
    assert first is not None
    assert first.password is not None
    assert (first.username, first.password.get_secret_value()) == ("AWS", "a-password")
    assert "a-password" not in repr(first)
    clock[0] = now + 11 * 3600
    provider.credentials_for(REGISTRY)
    assert len(fake_ecr.asked) == 1
    clock[0] = now + 11.6 * 3600
    provider.credentials_for(REGISTRY)
    assert fake_ecr.asked == ["GetAuthorizationToken"] * 2


def test_a_refused_token_can_be_forgotten_and_is_asked_for_again(fake_ecr: FakeEcr) -> None:
    fake_ecr.expires_at = datetime.now(UTC).timestamp() + 12 * 3600
    provider = EcrCredentials(endpoint_url=fake_ecr.url)
    provider.credentials_for(REGISTRY)
    provider.forget(REGISTRY)
    provider.credentials_for(REGISTRY)
    assert len(fake_ecr.asked) == 2


def test_many_threads_share_one_token(fake_ecr: FakeEcr) -> None:
    fake_ecr.expires_at = datetime.now(UTC).timestamp() + 12 * 3600
    provider = EcrCredentials(endpoint_url=fake_ecr.url)
    threads = [threading.Thread(target=provider.credentials_for, args=(REGISTRY,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fake_ecr.asked) == 1


def test_a_denied_call_names_the_action_that_is_missing(fake_ecr: FakeEcr) -> None:
    fake_ecr.refusal = (400, "AccessDeniedException")
    with pytest.raises(CredentialsRefused, match="ecr:GetAuthorizationToken") as caught:
        EcrCredentials(endpoint_url=fake_ecr.url).credentials_for(REGISTRY)
    assert "ecr:GetAuthorizationToken" in str(caught.value.advice)


def test_another_refusal_keeps_the_code_of_aws(fake_ecr: FakeEcr) -> None:
    fake_ecr.refusal = (400, "InvalidParameterException")
    with pytest.raises(AwsRefused) as caught:
        EcrCredentials(endpoint_url=fake_ecr.url).credentials_for(REGISTRY)
    assert (caught.value.code, caught.value.temporary) == ("InvalidParameterException", False)


def test_a_token_that_is_not_base64_is_refused(fake_ecr: FakeEcr) -> None:
    fake_ecr.token = "%%%"
    with pytest.raises(CredentialsRefused, match="not one"):
        EcrCredentials(endpoint_url=fake_ecr.url).credentials_for(REGISTRY)


def test_nobody_listening_is_a_temporary_error(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(AwsUnreachable) as caught:
        EcrCredentials(endpoint_url="http://127.0.0.1:9").credentials_for(REGISTRY)
    assert caught.value.temporary


def test_without_any_aws_credentials_the_advice_says_where_to_put_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(CredentialsRefused, match="no AWS credentials"):
        EcrCredentials().credentials_for(REGISTRY)


def test_without_boto3_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ToolMissing, match="boto3") as caught:
        EcrCredentials().credentials_for(REGISTRY)
    assert "soci-pipeline[aws]" in str(caught.value.advice)


def test_the_emulated_service_hands_out_a_user_and_password(emulated: None) -> None:
    found = EcrCredentials().credentials_for(REGISTRY)
    assert found is not None
    assert found.username == "AWS"


def test_a_missing_repository_is_named_and_only_made_when_asked(emulated: None) -> None:
    with pytest.raises(InvalidInput, match="team/app"):
        ensure_repository(REGISTRY, "team/app")
    made = ensure_repository(REGISTRY, "team/app", create=True)
    assert made.created
    assert made.uri == f"{REGISTRY}/team/app"
    again = ensure_repository(REGISTRY, "team/app", create=True)
    assert not again.created
    assert again.arn == made.arn


def test_a_registry_that_is_not_ecr_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not a private ECR registry"):
        ensure_repository("public.ecr.aws", "team/app", create=True)


@pytest.mark.parametrize(
    ("mode", "filters", "moving", "fixed"),
    [
        ("MUTABLE", [], "latest", None),
        ("IMMUTABLE", [], None, "latest"),
        ("IMMUTABLE_WITH_EXCLUSION", ["latest", "dev-*"], "dev-3", "v1.0"),
        ("MUTABLE_WITH_EXCLUSION", ["v*"], "latest", "v1.0"),
    ],
)
def test_all_four_rules_for_tags_are_read(
    credentials: None, mode: str, filters: list[str], moving: str | None, fixed: str | None
) -> None:
    with described({"imageTagMutability": mode, "imageTagMutabilityExclusionFilters": filters}) as url:
        rule = tag_mutability(REGISTRY, "team/app", endpoint_url=url)
    assert rule.mode == mode
    assert moving is None or rule.allows_moving(moving)
    assert fixed is None or not rule.allows_moving(fixed)


def test_the_rule_of_an_emulated_repository_is_read(emulated: None) -> None:
    client = boto3.client("ecr", region_name="eu-west-1")
    client.create_repository(repositoryName="team/fixed", imageTagMutability="IMMUTABLE")
    assert not tag_mutability(REGISTRY, "team/fixed").allows_moving("v1")


class described:  # noqa: N801 - reads as a verb where it is used
    """A loopback server that describes one repository; the emulator knows two of the four rules."""

    def __init__(self, fields: dict[str, object]) -> None:
        filters = [{"filterType": "WILDCARD", "filter": each} for each in fields["imageTagMutabilityExclusionFilters"]]  # type: ignore[attr-defined]
        self._body = {
            "repositories": [
                {
                    "repositoryUri": f"{REGISTRY}/team/app",
                    "repositoryArn": "arn:aws:ecr:eu-west-1:123456789012:repository/team/app",
                }
                | fields
                | {"imageTagMutabilityExclusionFilters": filters}
            ]
        }

    def __enter__(self) -> str:
        body = json.dumps(self._body).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Stay quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
