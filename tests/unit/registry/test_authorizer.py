"""Logins as a client meets them: Basic, Bearer tokens by scope, and realms that are not to be trusted."""

import base64
import contextlib
import gzip
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from soci_pipeline.errors import CredentialsRefused
from soci_pipeline.registry.auth import Credentials, Environment, FixedCredentials
from soci_pipeline.registry.authorizer import Authorizer
from soci_pipeline.registry.challenge import Challenge, parse_challenges
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.connection import connect
from soci_pipeline.registry.errors import AccessRefused, BrokenAnswer, RegistryError
from soci_pipeline.registry.server import Login, ServerSettings, serving
from tests.support.faults import Fault, FaultPlan, Kind
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
        assert client.manifests.head(REPOSITORY, "v1") == descriptor
        client.manifests.delete(REPOSITORY, "v1")


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
        client.manifests.get(REPOSITORY, "v1")
    assert "marker" not in f"{caught.value}{caught.value!r}{caught.value.__cause__!r}"
    assert len(plan.requests) <= 4


def from_environment(names: Iterable[str], registry: str) -> Environment:
    return Environment(dict.fromkeys(names, "wrong-marker") | {"SOCI_PIPELINE_REGISTRY": registry})


@pytest.mark.parametrize("login", [LOGIN, BASIC], ids=["bearer", "basic"])
def test_a_refused_login_of_the_environment_comes_with_the_names_of_its_variables(tmp_path: Path, login: Login) -> None:
    names = "SOCI_PIPELINE_REGISTRY_USERNAME", "SOCI_PIPELINE_REGISTRY_PASSWORD"
    with (
        serving(tmp_path, settings=ServerSettings(login=login)) as address,
        RegistryClient(address, settings=QUICK, credentials=from_environment(names, address)) as client,
        pytest.raises(CredentialsRefused) as caught,
    ):
        client.manifests.get(REPOSITORY, "v1")
    assert f"Correct {names[0]} and {names[1]} in the environment" in str(caught.value.advice)
    assert "marker" not in str(caught.value)


def test_a_refused_token_of_the_environment_comes_with_the_name_of_its_variable(tmp_path: Path) -> None:
    names = ("SOCI_PIPELINE_REGISTRY_TOKEN",)
    with (
        serving(tmp_path, settings=ServerSettings(login=LOGIN)) as address,
        RegistryClient(address, settings=QUICK, credentials=from_environment(names, address)) as client,
        pytest.raises(CredentialsRefused) as caught,
    ):
        client.manifests.get(REPOSITORY, "v1")
    assert "Correct SOCI_PIPELINE_REGISTRY_TOKEN in the environment" in str(caught.value.advice)


def test_an_identity_token_is_exchanged_for_others(tmp_path: Path) -> None:
    token = FixedCredentials(Credentials(identity_token=SecretStr("opensesame")))
    with registry(tmp_path, server=ServerSettings(login=LOGIN), credentials=token) as client:
        push_image(client, "v1")


def test_a_token_is_fetched_once_for_each_scope(tmp_path: Path) -> None:
    plan = FaultPlan()
    with registry(tmp_path, faults=plan, server=ServerSettings(login=LOGIN), credentials=CREDENTIALS) as client:
        push_image(client, "v1")
        push_image(client, "v2", seed=2)
        client.tags.list(REPOSITORY)
    assert len([path for _, path in plan.requests if path == "/token"]) == 2


def test_a_token_that_ran_out_is_replaced_before_it_is_used(tmp_path: Path) -> None:
    plan = FaultPlan()
    login = replace(LOGIN, token_life=1.0)
    with registry(tmp_path, faults=plan, server=ServerSettings(login=login), credentials=CREDENTIALS) as client:
        push_image(client, "v1")
        tokens = [path for _, path in plan.requests if path == "/token"]
        client._transport._authorizer._tokens.clear()
        client.tags.list(REPOSITORY)
        assert len([path for _, path in plan.requests if path == "/token"]) == len(tokens) + 1


def test_a_token_that_expires_in_mid_upload_is_refreshed(tmp_path: Path) -> None:
    plan = FaultPlan([Fault("PATCH", "/blobs/uploads/", nth=2, kind=Kind.EXPIRED_TOKEN)])
    with registry(tmp_path, faults=plan, server=ServerSettings(login=LOGIN), credentials=CREDENTIALS) as client:
        upload(client, b"x" * 900_000)
    assert plan.struck


@contextmanager
def challenging(challenge: str, seen: list[str]) -> Iterator[RegistryClient]:
    async def answer(request: Request) -> Response:
        seen.append(request.headers.get("authorization", ""))
        return Response(status_code=401, headers={"WWW-Authenticate": challenge})

    with strange(answer) as address, RegistryClient(address, settings=QUICK, credentials=CREDENTIALS) as client:
        yield client


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.example.com/token",
        "ftp://127.0.0.1/token",
        "//auth.example.com",
        "",
        "file:///etc/passwd",
        "https://[",
        "https://xn--/",
        "https:///token",
        "https://host:port/",
        "https://host:99999/",
        "https://a..b/token",
        "https://user:password@auth.example.com/token",
        "javascript:x",
    ],
)
def test_a_realm_that_is_no_https_address_gets_nothing(realm: str) -> None:
    seen: list[str] = []
    with (
        challenging(f'Bearer realm="{realm}",service="x"', seen) as client,
        pytest.raises(AccessRefused, match="nothing was sent"),
    ):
        client.ping()
    assert not any(seen)


def test_a_realm_on_this_machine_is_for_registries_on_this_machine() -> None:
    http = connect("registry.example.com", QUICK, ca_file=None)
    authorizer = Authorizer(http, "registry.example.com", CREDENTIALS, plain_http=False)
    challenge = 'Bearer realm="http://127.0.0.1:9/token",service="x"'
    with contextlib.closing(http), pytest.raises(AccessRefused, match="nothing was sent"):
        authorizer.refused(challenge, frozenset(), sent=None, url="https://registry.example.com/v2/")


def test_a_registry_over_https_sends_no_login_to_plain_http_not_even_on_this_machine() -> None:
    http = connect("127.0.0.1:9", QUICK, ca_file=None)
    authorizer = Authorizer(http, "127.0.0.1:9", CREDENTIALS, plain_http=False)
    challenge = 'Bearer realm="http://127.0.0.1:10/token",service="x"'
    with contextlib.closing(http), pytest.raises(AccessRefused, match="nothing was sent"):
        authorizer.refused(challenge, frozenset(), sent=None, url="https://127.0.0.1:9/v2/")


@pytest.mark.parametrize("challenge", ["", "Negotiate", "Digest realm=x"])
def test_an_unknown_scheme_is_named(challenge: str) -> None:
    with (
        challenging(challenge, []) as client,
        pytest.raises(AccessRefused, match="authentication scheme that is not supported"),
    ):
        client.ping()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": 5}',
        b'{"token": "a\\nb"}',
        b'{"token": "a", "expires_in": 1' + b"0" * 400 + b"}",
        b"[" * 200_000,
        b"x" * (2 << 20),
    ],
)
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


def token_registry(token: Callable[[Request], Awaitable[Response]]) -> Starlette:
    """A registry that sends everybody to a token address of its own."""

    async def answer(request: Request) -> Response:
        if request.headers.get("authorization", "").startswith("Bearer "):
            return JSONResponse({})
        realm = f"http://{request.headers['host']}/token"
        return Response(status_code=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})

    return Starlette(routes=[Route("/token", token, methods=["GET", "POST"]), Route("/{rest:path}", answer)])


IDENTITY = FixedCredentials(Credentials(identity_token=SecretStr("identity-marker")))
PASSWORD = FixedCredentials(Credentials("robot", SecretStr("password-marker")))


@pytest.mark.parametrize("credentials", [IDENTITY, PASSWORD], ids=["identity token", "password"])
def test_tokens_are_asked_for_uncompressed(credentials: FixedCredentials) -> None:
    async def token(request: Request) -> Response:
        body = b'{"token": "t"}'
        if "gzip" in request.headers.get("accept-encoding", "*gzip"):
            return Response(gzip.compress(body), headers={"Content-Encoding": "gzip"})
        return Response(body)

    with (
        strange(token_registry(token)) as address,
        RegistryClient(address, settings=QUICK, credentials=credentials) as client,
    ):
        client.ping()


@pytest.mark.parametrize("credentials", [IDENTITY, PASSWORD], ids=["identity token", "password"])
def test_a_token_address_that_repeats_the_login_does_not_bring_it_into_an_error(credentials: FixedCredentials) -> None:
    async def token(request: Request) -> Response:
        sent = f"{(await request.body()).decode()} password-marker {request.headers.get('authorization')}"
        return JSONResponse({"errors": [{"code": "DENIED", "message": sent}]}, status_code=400)

    with (
        strange(token_registry(token)) as address,
        RegistryClient(address, settings=QUICK, credentials=credentials) as client,
        pytest.raises(AccessRefused, match="DENIED") as caught,
    ):
        client.ping()
    told = "".join(traceback.format_exception(caught.value))
    basic = base64.b64encode(b"robot:password-marker").decode()
    assert basic not in told
    assert ("identity" if credentials is IDENTITY else "password") + "-marker" not in told


def test_a_token_that_no_header_can_hold_is_not_told() -> None:
    async def token(request: Request) -> Response:
        raise AssertionError("nobody asks for a token who has one")

    kept = FixedCredentials(Credentials(registry_token=SecretStr("kept-marker\n")))
    with (
        strange(token_registry(token)) as address,
        RegistryClient(address, settings=QUICK, credentials=kept) as client,
        pytest.raises(RegistryError) as caught,
    ):
        client.ping()
    assert "marker" not in "".join(traceback.format_exception(caught.value))


def test_a_challenge_of_blanks_is_read_in_no_time() -> None:
    assert parse_challenges("Basic," + " " * 8000 + '"') == (Challenge("basic"),)
    assert parse_challenges("Basic" + " ," * 4000 + "Bearer realm=x")[-1] == Challenge("bearer", {"realm": "x"})


def test_the_token_address_of_the_embedded_registry_reads_no_form_to_its_end(tmp_path: Path) -> None:
    with serving(tmp_path, settings=ServerSettings(login=LOGIN)) as address:
        answer = httpx.post(f"http://{address}/token", content=b"scope=" + b"x" * 70_000, trust_env=False)
    assert answer.status_code == 413
