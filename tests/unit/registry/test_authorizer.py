"""Logins as a client meets them: Basic, Bearer tokens by scope, and realms that are not to be trusted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from soci_pipeline.errors import CredentialsRefused
from soci_pipeline.registry.auth import Credentials, FixedCredentials
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import AccessRefused, BrokenAnswer
from soci_pipeline.registry.server import Fault, FaultPlan, ServerSettings
from soci_pipeline.registry.server.faults import Kind
from tests.support.registries import CREDENTIALS, LOGIN, QUICK, REPOSITORY, push_image, registry, upload
from tests.support.strange import strange

BASIC = replace(LOGIN, bearer=False)
WRONG = FixedCredentials(Credentials("robot", SecretStr("wrong-marker")))


@pytest.mark.parametrize("login", [LOGIN, BASIC], ids=["bearer", "basic"])
def test_a_login_opens_every_operation(tmp_path: Path, login: object) -> None:
    server = ServerSettings(login=BASIC if login is BASIC else LOGIN)
    with registry(tmp_path, server=server, credentials=CREDENTIALS) as client:
        client.ping()
        descriptor, _ = push_image(client, "v1")
        assert client.head_manifest(REPOSITORY, "v1") == descriptor
        client.delete_manifest(REPOSITORY, "v1")


@pytest.mark.parametrize("login", [LOGIN, BASIC], ids=["bearer", "basic"])
@pytest.mark.parametrize("credentials", [None, WRONG], ids=["none", "wrong"])
def test_no_credentials_and_wrong_ones_are_refused_without_repeats_or_secrets(
    tmp_path: Path, login: object, credentials: FixedCredentials | None
) -> None:
    plan = FaultPlan()
    server = ServerSettings(login=BASIC if login is BASIC else LOGIN)
    with (
        registry(tmp_path, faults=plan, server=server, credentials=credentials) as client,
        pytest.raises(CredentialsRefused) as caught,
    ):
        client.get_manifest(REPOSITORY, "v1")
    assert "marker" not in f"{caught.value}{caught.value!r}{caught.value.__cause__!r}"
    assert len(plan.requests) <= 4


def test_an_identity_token_is_exchanged_for_others(tmp_path: Path) -> None:
    token = FixedCredentials(Credentials(identity_token=SecretStr("opensesame")))
    with registry(tmp_path, server=ServerSettings(login=LOGIN), credentials=token) as client:
        push_image(client, "v1")


def test_a_token_is_fetched_once_for_each_scope(tmp_path: Path) -> None:
    plan = FaultPlan()
    with registry(tmp_path, faults=plan, server=ServerSettings(login=LOGIN), credentials=CREDENTIALS) as client:
        push_image(client, "v1")
        push_image(client, "v2", seed=2)
        client.list_tags(REPOSITORY)
    assert len([path for _, path in plan.requests if path == "/token"]) == 2


def test_a_token_that_ran_out_is_replaced_before_it_is_used(tmp_path: Path) -> None:
    plan = FaultPlan()
    login = replace(LOGIN, token_life=1.0)
    with registry(tmp_path, faults=plan, server=ServerSettings(login=login), credentials=CREDENTIALS) as client:
        push_image(client, "v1")
        tokens = [path for _, path in plan.requests if path == "/token"]
        client._transport._authorizer._tokens.clear()
        client.list_tags(REPOSITORY)
        assert len([path for _, path in plan.requests if path == "/token"]) == len(tokens) + 1


def test_a_token_that_expires_in_mid_upload_is_refreshed(tmp_path: Path) -> None:
    plan = FaultPlan([Fault("PATCH", "/blobs/uploads/", nth=2, kind=Kind.EXPIRED_TOKEN)])
    with registry(tmp_path, faults=plan, server=ServerSettings(login=LOGIN), credentials=CREDENTIALS) as client:
        upload(client, b"x" * 900_000)
    assert plan.struck


class Rotating:
    """A provider whose password changes each time it is asked, as ECR's does."""

    def __init__(self) -> None:
        self.asked = 0

    def credentials_for(self, registry: str) -> Credentials:
        self.asked += 1
        return Credentials("AWS", SecretStr(f"token-{self.asked}"))


def test_ecrs_403_for_a_token_that_is_too_old_asks_the_provider_again() -> None:
    async def answer(request: Request) -> Response:
        given = request.headers.get("authorization")
        if given is None:
            return Response(status_code=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        if given == Credentials("AWS", SecretStr("token-1")).basic():
            message = "Your authorization token has expired. Reauthenticate and try again."
            return JSONResponse({"errors": [{"code": "DENIED", "message": message}]}, status_code=403)
        return JSONResponse({"name": "a", "tags": ["v1"]})

    provider = Rotating()
    with strange(answer) as address, RegistryClient(address, settings=QUICK, credentials=provider) as client:
        assert client.list_tags("a") == ("v1",)
    assert provider.asked == 2


@contextmanager
def challenging(challenge: str, seen: list[str]) -> Iterator[RegistryClient]:
    async def answer(request: Request) -> Response:
        seen.append(request.headers.get("authorization", ""))
        return Response(status_code=401, headers={"WWW-Authenticate": challenge})

    with strange(answer) as address, RegistryClient(address, settings=QUICK, credentials=CREDENTIALS) as client:
        yield client


@pytest.mark.parametrize(
    "realm", ["http://auth.example.com/token", "ftp://127.0.0.1/token", "//auth.example.com", "", "file:///etc/passwd"]
)
def test_a_realm_that_is_no_https_address_gets_nothing(realm: str) -> None:
    seen: list[str] = []
    with (
        challenging(f'Bearer realm="{realm}",service="x"', seen) as client,
        pytest.raises(AccessRefused, match="nothing was sent"),
    ):
        client.ping()
    assert not any(seen)


@pytest.mark.parametrize("challenge", ["", "Negotiate", "Digest realm=x"])
def test_an_unknown_scheme_is_named(challenge: str) -> None:
    with challenging(challenge, []) as client, pytest.raises(AccessRefused, match="not known"):
        client.ping()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token": 5}', b'{"token": "a\\nb"}', b"x" * (2 << 20)])
def test_a_token_address_that_answers_nonsense_is_named(body: bytes) -> None:
    async def token(request: Request) -> Response:
        return Response(body)

    async def answer(request: Request) -> Response:
        realm = f"http://{request.headers['host']}/token"
        return Response(status_code=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})

    routes = [Route("/token", token), Route("/{rest:path}", answer)]
    with (
        strange(Starlette(routes=routes)) as address,
        RegistryClient(address, settings=QUICK) as client,
        pytest.raises(BrokenAnswer),
    ):
        client.ping()
