"""A registry's password and tokens reach that registry's scheme, host and port alone, and the realm that it names."""

import contextlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from soci_pipeline.errors import SociPipelineError
from soci_pipeline.registry.auth import Credentials, FixedCredentials
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.server import ServerSettings, serving
from tests.support.certificates import certificate
from tests.support.registries import QUICK, described
from tests.support.strange import strange

DATA = b"some bytes of a layer"
BLOB = described(DATA)
LOGINS = [
    Credentials("robot", SecretStr("do-not-send")),
    Credentials(registry_token=SecretStr("do-not-send")),
]
Operation = Callable[[RegistryClient], object]
OPERATIONS: dict[str, Operation] = {
    "a manifest": lambda client: client.manifests.get("a", "v1"),
    "a blob": lambda client: client.blobs.read("a", BLOB),
    "a part of a blob": lambda client: client.blobs.read_range("a", BLOB.digest, 0, 4),
    "a blob that is asked for": lambda client: client.blobs.exists("a", BLOB),
    "an upload": lambda client: client.blobs.upload("a", BLOB, lambda: io.BytesIO(DATA)),
    "a manifest that is pushed": lambda client: client.manifests.put("a", "v1", b"{}", "application/json"),
    "a manifest that is deleted": lambda client: client.manifests.delete("a", BLOB.digest),
    "tags": lambda client: client.tags.list("a"),
    "referrers": lambda client: client.referrers.list("a", BLOB.digest),
}


class Foreign:
    """A server that is not the registry: it asks for a login, and keeps every request that it gets."""

    def __init__(self, challenge: str) -> None:
        self.challenge = challenge
        self.requests: list[str] = []

    async def answer(self, request: Request) -> Response:
        self.requests.append(f"{request.method} {request.url} {dict(request.headers)} {await request.body()!r}")
        if request.url.path == "/token":
            return JSONResponse({"token": "stolen"})
        challenge = self.challenge.replace("HOST", request.headers["host"])
        return Response(status_code=401, headers={"WWW-Authenticate": challenge, "Set-Cookie": "stolen=1"})

    @property
    def got_a_secret(self) -> bool:
        # "robot:do-not-send" in base64 begins so.
        return any("do-not-send" in each or "cm9ib3Q6" in each or "authorization" in each for each in self.requests)


@contextmanager
def leading(to: str, credentials: Credentials) -> Iterator[RegistryClient]:
    """A registry that takes the login and then leads to another server, by each way that there is."""

    async def answer(request: Request) -> Response:
        if "authorization" not in request.headers:
            scheme = "Basic" if credentials.password else 'Bearer realm="http://127.0.0.1:1/",'
            return Response(
                status_code=401, headers={"WWW-Authenticate": f"{scheme} realm=x", "Set-Cookie": "session=1"}
            )
        if request.method == "HEAD" and request.url.path.endswith(BLOB.digest) and "uploads" in to:
            return Response(status_code=404)
        if "/uploads/" in request.url.path and "uploads" in to:
            return Response(status_code=202, headers={"Location": to})
        if request.url.path.endswith(("/list", BLOB.digest)) and "pages" in to:
            listed = {
                "tags": [],
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [],
            }
            return JSONResponse(listed, headers={"Link": f'<{to}>; rel="next"'})
        return RedirectResponse(to, 307)

    with (
        strange(answer) as address,
        RegistryClient(address, settings=QUICK, credentials=FixedCredentials(credentials)) as client,
    ):
        yield client


@pytest.mark.parametrize("challenge", ['Basic realm="x"', 'Bearer realm="http://HOST/token",service="x"'])
@pytest.mark.parametrize("credentials", LOGINS, ids=["password", "registry token"])
@pytest.mark.parametrize("way", ["moved", "uploads", "pages"])
def test_another_port_that_asks_for_a_login_gets_none(way: str, credentials: Credentials, challenge: str) -> None:
    foreign = Foreign(challenge)
    with strange(foreign.answer) as elsewhere, leading(f"http://{elsewhere}/{way}", credentials) as client:
        for operation in OPERATIONS.values():
            with contextlib.suppress(SociPipelineError):
                operation(client)
    assert foreign.requests or way == "pages"
    assert not foreign.got_a_secret
    assert not any("cookie" in each for each in foreign.requests)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_redirect_to_another_port_carries_no_login_whatever_the_operation(name: str) -> None:
    foreign = Foreign('Basic realm="x"')
    with (
        strange(foreign.answer) as elsewhere,
        leading(f"http://{elsewhere}/moved", LOGINS[0]) as client,
        pytest.raises(SociPipelineError),
    ):
        OPERATIONS[name](client)
    assert foreign.requests
    assert not foreign.got_a_secret


def test_a_token_of_the_registry_does_not_follow_to_another_port(tmp_path: Path) -> None:
    foreign = Foreign('Bearer realm="http://HOST/token",service="x"')
    asked: list[str] = []

    with strange(foreign.answer) as elsewhere:

        async def answer(request: Request) -> Response:
            asked.append(request.headers.get("authorization", ""))
            if request.url.path == "/token":
                return JSONResponse({"token": "do-not-send"})
            if not asked[-1].startswith("Bearer"):
                realm = f"http://{request.headers['host']}/token"
                return Response(status_code=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})
            return RedirectResponse(f"http://{elsewhere}/moved", 307)

        credentials = FixedCredentials(LOGINS[0])
        with (
            strange(answer) as address,
            RegistryClient(address, settings=QUICK, credentials=credentials) as client,
            pytest.raises(SociPipelineError),
        ):
            client.manifests.get("a", "v1")
    assert "Bearer do-not-send" in asked
    assert foreign.requests
    assert not foreign.got_a_secret


def test_a_token_address_that_redirects_is_not_followed_with_the_login() -> None:
    foreign = Foreign('Basic realm="x"')
    with strange(foreign.answer) as elsewhere:

        async def answer(request: Request) -> Response:
            if request.url.path == "/token":
                return RedirectResponse(f"http://{elsewhere}/token", 307)
            realm = f"http://{request.headers['host']}/token"
            return Response(status_code=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})

        for login in (LOGINS[0], Credentials(identity_token=SecretStr("do-not-send"))):
            with (
                strange(answer) as address,
                RegistryClient(address, settings=QUICK, credentials=FixedCredentials(login)) as client,
                pytest.raises(SociPipelineError),
            ):
                client.ping()
    assert foreign.requests == []


def test_a_redirect_from_https_to_http_carries_no_login(tmp_path: Path) -> None:
    foreign = Foreign('Basic realm="x"')
    own = certificate(tmp_path)
    with (
        strange(foreign.answer) as plain,
        serving(tmp_path / "r", settings=ServerSettings(), tls_cert=own.certificate, tls_key=own.key) as address,
    ):
        client = RegistryClient(
            address, settings=QUICK, ca_file=own.certificate, credentials=FixedCredentials(LOGINS[0])
        )
        with client:
            transport = client._transport
            same_host_over_http = transport.base.copy_with(scheme="http", port=int(plain.rpartition(":")[2]))
            assert not transport.is_own(same_host_over_http)
            assert not transport.is_own(transport.base.copy_with(port=1))
            assert not transport.is_own(transport.base.copy_with(host="localhost"))
            assert not transport.is_own(transport.base.copy_with(userinfo=b"robot:x"))
            assert transport.is_own(transport.base)
    assert foreign.requests == []
