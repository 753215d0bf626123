"""Registries behind a proxy that ends TLS and name themselves with http, and token addresses that redirect."""

import io
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from soci_pipeline.errors import SociPipelineError
from soci_pipeline.registry.auth import Credentials, FixedCredentials
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import AccessRefused, BrokenAnswer, RegistryUnreachable
from tests.support.certificates import Pair, certificate
from tests.support.deviations import NamesItselfWithHttp
from tests.support.registries import AT_ONCE, CREDENTIALS, described, noise, push_image
from tests.support.strange import strange

NAME = "team/app"
DATA = noise(700_000)
Handler = Callable[[Request], Awaitable[Response]]
LOGINS = [
    Credentials("robot", SecretStr("do-not-send")),
    Credentials(identity_token=SecretStr("do-not-send")),
]


@pytest.fixture
def own(tmp_path: Path) -> Pair:
    return certificate(tmp_path)


@contextmanager
def over_tls(handler: Handler, own: Pair, login: Credentials | None = None) -> Iterator[RegistryClient]:
    credentials = CREDENTIALS if login is None else FixedCredentials(login)
    with (
        strange(handler, tls=own) as address,
        RegistryClient(address, settings=AT_ONCE, ca_file=own.certificate, credentials=credentials) as client,
    ):
        yield client


@pytest.mark.parametrize("port", [True, False], ids=["with its port", "without a port"])
def test_a_registry_that_names_itself_with_http_is_reached_over_https(own: Pair, port: bool) -> None:
    registry = NamesItselfWithHttp(port=port)
    with over_tls(registry.answer, own) as client:
        client.blobs.upload(NAME, described(DATA), lambda: io.BytesIO(DATA))
        for tag in ("v1", "v2"):
            push_image(client, tag, to=NAME)
        assert client.tags.list(NAME) == ("v1", "v2")
        assert client.blobs.read(NAME, described(DATA)) == DATA
    assert registry.logins
    assert all(login.startswith("Basic ") for login in registry.logins)


@pytest.mark.parametrize(
    ("registry", "realm", "asked"),
    [
        ("r.example.com", "http://r.example.com/t", ["https://r.example.com/t"]),
        ("r.example.com", "http://R.example.com:80/t", ["https://r.example.com/t"]),
        ("r.example.com", "http://r.example.com:443/t", ["https://r.example.com/t"]),
        ("r.example.com:5050", "http://r.example.com:5050/t", ["https://r.example.com:5050/t"]),
        ("r.example.com:5050", "http://r.example.com/t", ["https://r.example.com:5050/t", "https://r.example.com/t"]),
        ("r.example.com:5050", "https://auth.example.com/t?a=b", ["https://auth.example.com/t?a=b"]),
    ],
)
def test_a_realm_of_the_registrys_own_host_is_asked_over_https(registry: str, realm: str, asked: list[str]) -> None:
    with RegistryClient(registry, settings=AT_ONCE) as client:
        assert [str(url) for url in client._transport._authorizer._realms(realm)] == asked


def test_a_realm_without_a_port_may_be_at_the_port_of_https(own: Pair) -> None:
    """GitLab: its registry has a port of its own, its token address has none."""

    async def answer(request: Request) -> Response:
        if request.url.path == "/jwt/auth":
            return Response(status_code=404)
        return Response(status_code=401, headers={"WWW-Authenticate": 'Bearer realm="http://127.0.0.1/jwt/auth"'})

    with over_tls(answer, own) as client, pytest.raises(SociPipelineError) as caught:
        client.ping()
    assert "https://127.0.0.1/jwt/auth" in str(caught.value)


@pytest.mark.parametrize(
    "realm", ["http://localhost:{port}/token", "http://127.0.0.1:1/token", "http://10.0.0.1/token"]
)
def test_a_realm_of_another_host_or_port_over_http_gets_nothing(own: Pair, realm: str) -> None:
    async def answer(request: Request) -> Response:
        named = realm.replace("{port}", request.headers["host"].partition(":")[2])
        return Response(status_code=401, headers={"WWW-Authenticate": f'Bearer realm="{named}"'})

    with over_tls(answer, own) as client, pytest.raises(AccessRefused, match="nothing was sent"):
        client.ping()


@pytest.mark.parametrize(
    "operation",
    [
        lambda client: client.tags.list("a"),
        lambda client: client.blobs.upload("a", described(DATA), lambda: io.BytesIO(DATA)),
    ],
    ids=["Link", "Location"],
)
def test_another_host_over_http_is_not_followed(own: Pair, operation: Callable[[RegistryClient], object]) -> None:
    async def answer(request: Request) -> Response:
        if request.url.path.endswith("/tags/list"):
            return JSONResponse({"tags": []}, headers={"Link": '<http://localhost/v2/a/tags/list>; rel="next"'})
        if request.method == "HEAD":
            return Response(status_code=404)
        return Response(status_code=202, headers={"Location": "http://localhost/v2/a/blobs/uploads/1"})

    with over_tls(answer, own) as client, pytest.raises(BrokenAnswer, match="not followed"):
        operation(client)


def test_a_registry_over_https_sends_nothing_readable_to_an_http_port_of_its_own() -> None:
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            connection, _ = listener.accept()
            with connection:
                received.extend(connection.recv(65_536))

        thread = threading.Thread(target=listen)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with (
            RegistryClient(address, settings=AT_ONCE, plain_http=False, credentials=CREDENTIALS) as client,
            pytest.raises(RegistryUnreachable),
        ):
            client._transport._authorizer.refused(
                f'Bearer realm="http://{address}/token"', frozenset(), sent=None, url=f"https://{address}/v2/"
            )
        thread.join(10)
    # A TLS handshake begins with 22.
    assert received[0] == 22
    assert b"HTTP" not in received
    assert b"Basic" not in received


def token_address(redirect: Callable[[Request], Response | None], seen: list[str]) -> Handler:
    """A registry whose token address redirects, and answers with a token where ``redirect`` does not."""

    async def answer(request: Request) -> Response:
        if not request.url.path.startswith("/token"):
            if request.headers.get("authorization") == "Bearer given":
                return JSONResponse({})
            realm = f"{request.url.scheme}://{request.headers['host']}/token"
            return Response(status_code=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})
        seen.append(f"{request.method} {request.url} {request.headers.get('authorization')} {await request.body()!r}")
        return redirect(request) or JSONResponse({"token": "given"})

    return answer


def carries_the_login(text: str) -> bool:
    # "robot:do-not-send" in base64 begins so.
    return "do-not-send" in text or "cm9ib3Q6" in text


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("login", LOGINS, ids=["password", "identity token"])
@pytest.mark.parametrize("target", ["/token/", "{origin}/token/", "{http}/token/"], ids=["path", "URL", "http"])
def test_a_redirect_of_the_token_address_on_its_own_server_keeps_the_login(
    own: Pair, status: int, login: Credentials, target: str
) -> None:
    def redirect(request: Request) -> Response | None:
        host = request.headers["host"]
        to = target.replace("{origin}", f"https://{host}").replace("{http}", f"http://{host}")
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(to + query, status) if request.url.path == "/token" else None

    seen: list[str] = []
    with over_tls(token_address(redirect, seen), own, login) as client:
        client.ping()
    assert len(seen) == 2
    assert all(carries_the_login(each) for each in seen)


@pytest.mark.parametrize("login", LOGINS, ids=["password", "identity token"])
@pytest.mark.parametrize("way", ["other port", "other name", "plain http", "user", "no Location", "not a URL"])
def test_a_redirect_of_the_token_address_to_another_server_does_not_get_the_login(
    own: Pair, login: Credentials, way: str
) -> None:
    elsewhere: list[str] = []

    async def foreign(request: Request) -> Response:
        elsewhere.append(str(request.url))
        return JSONResponse({"token": "given"})

    with strange(foreign) as plain, strange(foreign, tls=own) as other:
        port = other.partition(":")[2]
        targets = {
            "other port": f"https://{other}/token",
            "other name": f"https://localhost:{port}/token",
            "plain http": f"http://localhost:{plain.partition(':')[2]}/token",
            "user": "https://robot:x@{host}/token/",
            "not a URL": "https://[",
        }

        def redirect(request: Request) -> Response | None:
            location = targets.get(way, "").replace("{host}", request.headers["host"])
            return Response(status_code=307, headers={"Location": location} if location else {})

        with over_tls(token_address(redirect, []), own, login) as client, pytest.raises(SociPipelineError) as caught:
            client.ping()
    assert elsewhere == []
    assert "do-not-send" not in str(caught.value)


def test_a_token_address_that_redirects_in_a_circle_ends(own: Pair) -> None:
    seen: list[str] = []
    circle = token_address(lambda request: RedirectResponse("/token", 307), seen)
    with over_tls(circle, own) as client, pytest.raises(BrokenAnswer, match="redirects more than"):
        client.ping()
    assert len(seen) < 10


def test_a_post_of_the_token_address_is_not_turned_into_a_get(own: Pair) -> None:
    see_other = token_address(lambda request: RedirectResponse("/token/", 303), [])
    with over_tls(see_other, own, LOGINS[1]) as client, pytest.raises(BrokenAnswer, match="303"):
        client.ping()
