"""Logins as a client meets them: Basic, Bearer tokens by scope, and realms that are not to be trusted."""

import base64
import contextlib
import gzip
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from soci_pipeline.errors import CredentialsRefused
from soci_pipeline.registry.auth import CredentialChain, Credentials, Environment, FixedCredentials
from soci_pipeline.registry.authorizer import Authorizer
from soci_pipeline.registry.challenge import Challenge, parse_challenges
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.connection import connect
from soci_pipeline.registry.errors import AccessRefused, BrokenAnswer, RegistryError
from soci_pipeline.registry.server import Fault, FaultPlan, Login, ServerSettings, create_app, serving
from soci_pipeline.registry.server.faults import Kind
from tests.support.registries import CREDENTIALS, LOGIN, QUICK, REPOSITORY, leftovers, push_image, registry, upload
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


@pytest.mark.parametrize("login", [LOGIN, BASIC], ids=["bearer", "basic"])
def test_a_refused_login_of_the_environment_comes_with_the_names_of_its_variables(tmp_path: Path, login: Login) -> None:
    names = "SOCI_PIPELINE_REGISTRY_USERNAME", "SOCI_PIPELINE_REGISTRY_PASSWORD"
    credentials = Environment(dict.fromkeys(names, "wrong-marker"))
    with (
        registry(tmp_path, server=ServerSettings(login=login), credentials=credentials) as client,
        pytest.raises(CredentialsRefused) as caught,
    ):
        client.get_manifest(REPOSITORY, "v1")
    assert f"Correct {names[0]} and {names[1]} in the environment" in str(caught.value.advice)
    assert "marker" not in str(caught.value)


def test_a_refused_token_of_the_environment_comes_with_the_name_of_its_variable(tmp_path: Path) -> None:
    credentials = Environment({"SOCI_PIPELINE_REGISTRY_TOKEN": "wrong-marker"})
    with (
        registry(tmp_path, server=ServerSettings(login=LOGIN), credentials=credentials) as client,
        pytest.raises(CredentialsRefused) as caught,
    ):
        client.get_manifest(REPOSITORY, "v1")
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


class Keeping:
    """A provider that keeps its token until it is told to forget it, as ECR's does."""

    def __init__(self) -> None:
        self.made = 0
        self._kept: Credentials | None = None

    def credentials_for(self, registry: str) -> Credentials:
        if self._kept is None:
            self.made += 1
            self._kept = Credentials("AWS", SecretStr(f"token-{self.made}"))
        return self._kept

    def forget(self, registry: str) -> None:
        self._kept = None


FIRST = Credentials("AWS", SecretStr("token-1")).basic()
EXPIRED = {"errors": [{"code": "DENIED", "message": "Your authorization token has expired. Reauthenticate."}]}


@pytest.mark.parametrize("status", [401, 403], ids=["401", "ECR's 403"])
def test_a_kept_token_that_is_refused_is_forgotten_and_asked_for_anew(status: int) -> None:
    async def answer(request: Request) -> Response:
        given = request.headers.get("authorization")
        if given in (None, FIRST):
            challenge = {"WWW-Authenticate": 'Basic realm="x"'}
            return JSONResponse(EXPIRED, status_code=401 if given is None else status, headers=challenge)
        return JSONResponse({"name": "a", "tags": ["v1"]})

    provider = Keeping()
    with strange(answer) as address, RegistryClient(address, settings=QUICK, credentials=provider) as client:
        assert client.list_tags("a") == ("v1",)
        assert client.list_tags("a") == ("v1",)
    assert provider.made == 2


def test_a_kept_token_that_the_token_address_refuses_is_forgotten_and_asked_for_anew() -> None:
    async def token(request: Request) -> Response:
        if request.headers.get("authorization") == FIRST:
            return Response(status_code=401)
        return JSONResponse({"token": "bearer"})

    async def answer(request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer bearer":
            realm = f"http://{request.headers['host']}/token"
            return Response(status_code=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})
        return JSONResponse({"name": "a", "tags": ["v1"]})

    provider = Keeping()
    routes = [Route("/token", token), Route("/{rest:path}", answer)]
    with (
        strange(Starlette(routes=routes)) as address,
        RegistryClient(address, settings=QUICK, credentials=provider) as client,
    ):
        assert client.list_tags("a") == ("v1",)
    assert provider.made == 2


def test_a_kept_token_that_is_refused_in_mid_upload_is_replaced_and_the_upload_goes_on(tmp_path: Path) -> None:
    """The registry takes the first token for one part, and from then on another one alone."""
    registry_app = create_app(tmp_path)
    parts = 0

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal parts
        given = dict(scope["headers"]).get(b"authorization", b"").decode()
        parts += scope["method"] == "PATCH"
        if not given or (given == FIRST and parts > 1):
            await Response(status_code=401, headers={"WWW-Authenticate": "Basic realm=x"})(scope, receive, send)
            return
        await registry_app(scope, receive, send)

    provider, data = Keeping(), b"x" * 900_000
    app = Starlette(routes=[Mount("", app=front)])
    with strange(app) as address, RegistryClient(address, settings=QUICK, credentials=provider) as client:
        assert client.read_blob(REPOSITORY, upload(client, data)) == data
    assert provider.made == 2
    assert leftovers(tmp_path) == []


def test_a_provider_without_another_token_is_asked_once_more_and_no_oftener() -> None:
    class Stubborn(Keeping):
        def forget(self, registry: str) -> None:
            self.made += 1

    async def answer(request: Request) -> Response:
        return Response(status_code=401, headers={"WWW-Authenticate": "Basic realm=x"})

    provider = Stubborn()
    with (
        strange(answer) as address,
        RegistryClient(address, settings=QUICK, credentials=provider) as client,
        pytest.raises(AccessRefused, match="does not take"),
    ):
        client.ping()
    assert provider.made == 2


def test_a_chain_tells_every_provider() -> None:
    kept = Keeping()
    chain = CredentialChain(FixedCredentials(Credentials("a"), registry="elsewhere"), kept)
    first = chain.credentials_for("here")
    chain.forget("here")
    assert chain.credentials_for("here") != first


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


@pytest.mark.parametrize("challenge", ["", "Negotiate", "Digest realm=x"])
def test_an_unknown_scheme_is_named(challenge: str) -> None:
    with challenging(challenge, []) as client, pytest.raises(AccessRefused, match="not known"):
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


@pytest.mark.parametrize(
    ("work", "method", "action"),
    [
        (lambda client: client.get_manifest(REPOSITORY, "v1"), "GET", "pull"),
        (lambda client: upload(client, b"x"), "POST", "push"),
        (lambda client: client.delete_manifest(REPOSITORY, "v1"), "DELETE", "delete"),
    ],
)
@pytest.mark.parametrize("login", [LOGIN, BASIC], ids=["bearer", "basic"])
def test_a_login_that_is_taken_and_may_not_is_told_what_it_lacks(
    tmp_path: Path, login: Login, work: Callable[[RegistryClient], object], method: str, action: str
) -> None:
    plan = FaultPlan([Fault(method, f"/v2/{REPOSITORY}/", times=9, status=403, code="DENIED")])
    server = ServerSettings(login=login)
    with registry(tmp_path, faults=plan, server=server, credentials=CREDENTIALS) as client:
        client.ping()
        with pytest.raises(AccessRefused) as caught:
            work(client)
    assert f"login was accepted, but lacks the permission to {action} on {REPOSITORY}" in str(caught.value.advice)
    assert "docker login" not in str(caught.value.advice)


def _of_a_token(error: str, code: str) -> Starlette:
    """A registry that gives everybody a token and then says why it is not enough."""

    async def token(request: Request) -> Response:
        return JSONResponse({"token": "given"})

    async def answer(request: Request) -> Response:
        challenge = f'Bearer realm="http://{request.headers["host"]}/token",error="{error}"'
        body = {"errors": [{"code": code, "message": "requested access to the resource is denied"}]}
        return JSONResponse(body, 401, headers={"WWW-Authenticate": challenge})

    return Starlette(routes=[Route("/token", token), Route("/{rest:path}", answer, methods=["GET", "POST"])])


@pytest.mark.parametrize(
    ("error", "code", "accepted"),
    [
        ("insufficient_scope", "UNAUTHORIZED", True),
        ("", "DENIED", True),
        ("invalid_token", "UNAUTHORIZED", False),
        ("", "UNAUTHORIZED", False),
    ],
)
def test_a_token_of_too_little_scope_is_a_lack_of_permission(error: str, code: str, accepted: bool) -> None:
    with (
        strange(_of_a_token(error, code)) as address,
        RegistryClient(address, settings=QUICK, credentials=CREDENTIALS) as client,
        pytest.raises(AccessRefused) as caught,
    ):
        client.get_manifest(REPOSITORY, "v1")
    assert ("lacks the permission to pull on team/app" in str(caught.value.advice)) is accepted
    assert ("docker login" in str(caught.value.advice)) is not accepted


def test_without_a_login_a_refusal_asks_for_one(tmp_path: Path) -> None:
    plan = FaultPlan([Fault("GET", "/manifests/", times=9, status=403, code="DENIED")])
    with (
        strange(_of_a_token("insufficient_scope", "DENIED")) as address,
        RegistryClient(address, settings=QUICK) as stranger,
        registry(tmp_path, faults=plan) as client,
    ):
        for each in (stranger, client):
            with pytest.raises(AccessRefused) as caught:
                each.get_manifest(REPOSITORY, "v1")
            assert "docker login" in str(caught.value.advice)


def test_a_token_that_stays_too_old_is_not_called_accepted() -> None:
    async def answer(request: Request) -> Response:
        if "authorization" in request.headers:
            return JSONResponse(EXPIRED, 403)
        return Response(status_code=401, headers={"WWW-Authenticate": 'Basic realm="ecr"'})

    with (
        strange(answer) as address,
        RegistryClient(address, settings=QUICK, credentials=Keeping()) as client,
        pytest.raises(AccessRefused, match="expired") as caught,
    ):
        client.get_manifest(REPOSITORY, "v1")
    assert "docker login" in str(caught.value.advice)
