"""Tokens that a provider keeps: what happens when the registry takes them no more."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from soci_pipeline.registry.auth import CredentialChain, Credentials, FixedCredentials
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import AccessRefused
from soci_pipeline.registry.server import create_app
from tests.support.registries import QUICK, REPOSITORY, leftovers, upload
from tests.support.strange import strange


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
        assert client.tags.list("a") == ("v1",)
        assert client.tags.list("a") == ("v1",)
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
        assert client.tags.list("a") == ("v1",)
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
        assert client.blobs.read(REPOSITORY, upload(client, data)) == data
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
        pytest.raises(AccessRefused, match="rejects"),
    ):
        client.ping()
    assert provider.made == 2


def test_a_chain_tells_every_provider() -> None:
    kept = Keeping()
    chain = CredentialChain(FixedCredentials(Credentials("a"), registry="elsewhere"), kept)
    first = chain.credentials_for("here")
    chain.forget("here")
    assert chain.credentials_for("here") != first


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
        client.manifests.get(REPOSITORY, "v1")
    assert "docker login" in str(caught.value.advice)
