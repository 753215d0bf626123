"""Redirects, Locations and answers of registries that are broken or mean harm."""

import asyncio
import base64
import contextlib
import io
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from soci_pipeline.registry.auth import Credentials
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.connection import connect
from soci_pipeline.registry.errors import (
    BrokenAnswer,
    RegistryError,
    RegistryUnreachable,
)
from soci_pipeline.registry.transport import Call, Transport, is_size
from soci_pipeline.retry import Deadline
from tests.support.registries import CREDENTIALS, QUICK, described
from tests.support.strange import strange

DATA = b"some bytes of a layer"
BLOB = described(DATA)


def test_a_redirect_to_another_host_is_followed_without_authorization() -> None:
    seen: list[str | None] = []

    async def store(request: Request) -> Response:
        seen.append(request.headers.get("authorization"))
        return Response(DATA)

    with strange(store) as elsewhere:

        async def front(request: Request) -> Response:
            if "authorization" not in request.headers:
                return Response(status_code=401, headers={"WWW-Authenticate": "Basic realm=x"})
            return RedirectResponse(f"http://{elsewhere}/signed?signature=s3cret", 307)

        with strange(front) as address, RegistryClient(address, settings=QUICK, credentials=CREDENTIALS) as client:
            assert client.blobs.read("a", BLOB) == DATA
            assert client.blobs.read_range("a", BLOB.digest, 0, len(DATA)) == DATA
    assert seen == [None, None]


def test_the_signature_of_a_redirect_is_not_in_an_error() -> None:
    async def store(request: Request) -> Response:
        return Response(status_code=400)

    with strange(store) as elsewhere:

        async def front(request: Request) -> Response:
            return RedirectResponse(f"http://{elsewhere}/signed?signature=s3cret", 307)

        with (
            strange(front) as address,
            RegistryClient(address, settings=QUICK) as client,
            pytest.raises(RegistryError) as caught,
        ):
            client.blobs.read("a", BLOB)
    assert "s3cret" not in f"{caught.value} {caught.value.url}"


def test_a_redirect_that_leads_in_a_circle_ends() -> None:
    async def circle(request: Request) -> Response:
        return RedirectResponse(str(request.url), 307)

    with (
        strange(circle) as address,
        RegistryClient(address, settings=QUICK) as client,
        pytest.raises(BrokenAnswer, match="redirects more than"),
    ):
        client.blobs.read("a", BLOB)


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://example.com/plain",
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http://user:pw@127.0.0.1/x",
        "http://[bad/",
        "http://[::1",
        "https://xn--/",
        "https:///x",
        "x" * 9000,
    ],
)
def test_a_location_that_is_not_to_be_trusted_is_not_followed(location: str) -> None:
    async def answer(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(status_code=404)
        return Response(status_code=202, headers={"Location": location})

    with strange(answer) as address, RegistryClient(address, settings=QUICK) as client, pytest.raises(BrokenAnswer):
        client.blobs.upload("a", BLOB, lambda: io.BytesIO(DATA))


def test_a_web_server_that_is_no_registry_is_named() -> None:
    async def nothing(request: Request) -> Response:
        return Response("<html>", status_code=404)

    with (
        strange(nothing) as address,
        RegistryClient(address, settings=QUICK) as client,
        pytest.raises(BrokenAnswer, match="not an OCI registry"),
    ):
        client.ping()


def test_nothing_that_listens_is_unreachable_and_may_come_back() -> None:
    with RegistryClient("127.0.0.1:1", settings=QUICK) as client, pytest.raises(RegistryUnreachable) as caught:
        client.ping()
    assert caught.value.temporary


def transport_of(registry: str, *, plain_http: bool) -> Transport:
    http = connect(registry, QUICK, ca_file=None)
    return Transport(registry, credentials=None, plain_http=plain_http, http=http, settings=QUICK)


@pytest.mark.parametrize("location", ["http://127.0.0.1:8080/admin", "http://localhost/admin", "http://[::1]/admin"])
def test_a_registry_elsewhere_does_not_lead_to_this_machine(location: str) -> None:
    transport = transport_of("registry.example.com", plain_http=True)
    with contextlib.closing(transport), pytest.raises(BrokenAnswer, match="not followed"):
        transport.location(httpx.Headers({"Location": location}), transport.base)


def test_a_login_is_not_sent_again_after_a_redirect_has_left_the_registry() -> None:
    seen: list[tuple[str, bool]] = []

    async def front(request: Request) -> Response:
        if "authorization" not in request.headers and request.url.path != "/v2/back":
            return Response(status_code=401, headers={"WWW-Authenticate": "Basic realm=x"})
        seen.append((request.url.path, "authorization" in request.headers))
        if request.url.path == "/v2/back":
            return Response(DATA)
        return RedirectResponse(f"http://{elsewhere}/away?to={request.url.netloc}", 307)

    async def away(request: Request) -> Response:
        seen.append((request.url.path, "authorization" in request.headers))
        return RedirectResponse(f"http://{request.query_params['to']}/v2/back", 307)

    with (
        strange(away) as elsewhere,
        strange(front) as address,
        RegistryClient(address, settings=QUICK, credentials=CREDENTIALS) as client,
    ):
        assert client.blobs.read("a", BLOB) == DATA
    assert [authorized for _, authorized in seen] == [True, False, False]


def test_an_error_that_is_told_byte_by_byte_ends_with_the_deadline() -> None:
    async def drip() -> AsyncIterator[bytes]:
        for _ in range(1000):
            await asyncio.sleep(0.05)
            yield b" "

    async def answer(request: Request) -> Response:
        return StreamingResponse(drip(), status_code=400)

    with (
        strange(answer) as address,
        RegistryClient(address, settings=replace(QUICK, deadline=0.5)) as client,
        pytest.raises(RegistryError) as caught,
    ):
        client.tags.list("a")
    assert caught.value.status == 400


def test_an_error_does_not_repeat_the_login_that_it_answers() -> None:
    async def answer(request: Request) -> Response:
        sent = request.headers.get("authorization")
        if sent is None:
            return Response(status_code=401, headers={"WWW-Authenticate": "Basic realm=x"})
        errors = [{"code": sent, "message": f"not for {sent}", "detail": {"password": "opensesame"}}]
        return JSONResponse({"errors": errors}, status_code=400)

    with (
        strange(answer) as address,
        RegistryClient(address, settings=QUICK, credentials=CREDENTIALS) as client,
        pytest.raises(RegistryError, match="not for Basic") as caught,
    ):
        client.ping()
    said = f"{caught.value} {caught.value.code}"
    assert "opensesame" not in said
    assert base64.b64encode(b"robot:opensesame").decode() not in said


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_every_kind_of_redirect_is_followed_by_what_only_reads(status: int) -> None:
    async def answer(request: Request) -> Response:
        return Response(DATA) if request.url.path == "/moved" else RedirectResponse("/moved", status)

    with strange(answer) as address, RegistryClient(address, settings=QUICK) as client:
        assert client.blobs.read("a", BLOB) == DATA


@pytest.mark.parametrize(("status", "followed"), [(301, False), (302, False), (303, False), (307, True), (308, True)])
def test_a_request_that_writes_follows_only_the_redirects_that_keep_its_method(status: int, followed: bool) -> None:
    seen: list[tuple[str, str]] = []

    async def answer(request: Request) -> Response:
        seen.append((request.method, request.url.path))
        if request.method == "HEAD":
            return Response(status_code=404)
        return Response(status_code=400) if request.url.path == "/moved" else RedirectResponse("/moved", status)

    with strange(answer) as address, RegistryClient(address, settings=QUICK) as client, pytest.raises(RegistryError):
        client.blobs.upload("a", BLOB, lambda: io.BytesIO(DATA))
    assert (("POST", "/moved") in seen) is followed


def test_a_registry_that_calls_every_login_expired_is_given_two() -> None:
    seen: list[str | None] = []

    async def answer(request: Request) -> Response:
        seen.append(request.headers.get("authorization"))
        if seen[-1] is None:
            return Response(status_code=401, headers={"WWW-Authenticate": "Basic realm=x"})
        return JSONResponse({"errors": [{"code": "DENIED", "message": "the token has expired"}]}, status_code=403)

    class Another:
        made = 0

        def credentials_for(self, registry: str) -> Credentials:
            self.made += 1
            return Credentials("AWS", SecretStr(f"token-{self.made}"))

        def forget(self, registry: str) -> None:
            """Each is another anyway."""

    with (
        strange(answer) as address,
        RegistryClient(address, settings=QUICK, credentials=Another()) as client,
        pytest.raises(RegistryError, match="has expired"),
    ):
        client.tags.list("a")
    assert len(seen) == len(set(seen)) == 3


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://registry.example.com:5000/v2/", True),
        ("https://registry.example.com:5000/elsewhere?a=b", True),
        ("http://registry.example.com:5000/v2/", False),
        ("wss://registry.example.com:5000/v2/", False),
        ("https://another.example.com:5000/v2/", False),
        ("https://zone.example.com:5000/v2/", False),
        ("https://registry.example.com:4999/v2/", False),
        ("https://registry.example.com:5001/v2/", False),
        ("https://somebody@registry.example.com:5000/v2/", False),
    ],
)
def test_a_login_is_for_the_scheme_host_and_port_of_the_registry_alone(url: str, own: bool) -> None:
    with contextlib.closing(transport_of("registry.example.com:5000", plain_http=False)) as transport:
        assert transport.is_own(httpx.URL(url)) is own


@pytest.mark.parametrize("host", ["another.example.com", "zone.example.com"])
def test_a_registry_without_tls_does_not_lead_to_another_host_without_tls(host: str) -> None:
    transport = transport_of("registry.example.com", plain_http=True)
    with contextlib.closing(transport), pytest.raises(BrokenAnswer, match="not followed"):
        transport.location(httpx.Headers({"Location": f"http://{host}/x"}), transport.base)


def test_a_location_of_eight_kibibytes_is_the_longest_that_is_taken() -> None:
    longest = "/" + "x" * (8 * 1024 - 1)
    with contextlib.closing(transport_of("registry.example.com", plain_http=False)) as transport:
        assert transport.location(httpx.Headers({"Location": longest}), transport.base).path == longest
        with pytest.raises(BrokenAnswer, match="usable Location"):
            transport.location(httpx.Headers({"Location": f"{longest}x"}), transport.base)


def test_a_size_has_at_most_eighteen_digits() -> None:
    assert is_size("9" * 18)
    assert not is_size("1" * 19)


def test_an_error_that_comes_in_pieces_is_read_to_its_end() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"errors": [{"code": "NAME_INVALID",'
        await asyncio.sleep(0.05)
        yield b' "message": "not by this name"}]}'

    async def answer(request: Request) -> Response:
        return StreamingResponse(pieces(), status_code=400)

    with (
        strange(answer) as address,
        RegistryClient(address, settings=QUICK) as client,
        pytest.raises(RegistryError, match="not by this name"),
    ):
        client.tags.list("a")


def test_plain_http_at_the_host_of_a_registry_over_https_is_read_as_https() -> None:
    with contextlib.closing(transport_of("registry.example.com:5000", plain_http=False)) as transport:

        def location(url: str) -> str:
            return str(transport.location(httpx.Headers({"Location": url}), transport.base))

        assert location("http://registry.example.com/upload?a=b") == "https://registry.example.com:5000/upload?a=b"
        assert location("https://store.example.com/x") == "https://store.example.com/x"
        with pytest.raises(BrokenAnswer, match="redirects from https to http"):
            location("http://store.example.com/x")


def test_a_url_has_the_query_that_it_is_given() -> None:
    with contextlib.closing(transport_of("registry.example.com", plain_http=False)) as transport:
        assert str(transport.url("a/tags/list")) == "https://registry.example.com/v2/a/tags/list"
        assert str(transport.url("a/tags/list", n="5")) == "https://registry.example.com/v2/a/tags/list?n=5"


@pytest.mark.parametrize("path", ["//other.example.com/x", "http://other.example.com/x", "/x", "../../x", "x:y/z"])
def test_no_path_leads_to_another_host(path: str) -> None:
    with contextlib.closing(transport_of("registry.example.com", plain_http=False)) as transport:
        assert transport.is_own(transport.url(path))


def test_five_redirects_are_followed_and_no_sixth() -> None:
    async def answer(request: Request) -> Response:
        left = int(request.query_params["left"])
        return RedirectResponse(f"/v2/x?left={left - 1}", 307) if left else Response(DATA)

    def status(left: int) -> int:
        call = Call("GET", transport.url("x", left=str(left)), frozenset(), frozenset({200}))
        return transport.call(call, Deadline(10)).status

    with strange(answer) as address, contextlib.closing(transport_of(address, plain_http=True)) as transport:
        assert status(5) == 200
        with pytest.raises(BrokenAnswer, match="redirects more than 5 times"):
            status(6)


def test_an_error_without_an_end_is_read_up_to_a_bound() -> None:
    sent = 0

    async def answer(request: Request) -> Response:
        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < 256 << 20 and not await request.is_disconnected():
                sent += 1 << 16
                yield b" " * (1 << 16)

        return StreamingResponse(endless(), status_code=400)

    with (
        strange(answer) as address,
        RegistryClient(address, settings=QUICK) as client,
        pytest.raises(RegistryError) as caught,
    ):
        client.tags.list("a")
    assert caught.value.status == 400
    assert sent < 64 << 20


@pytest.mark.parametrize("status", [400, 403])
def test_only_another_host_that_refuses_head_is_sent_get(status: int) -> None:
    async def store(request: Request) -> Response:
        return Response(DATA if request.method == "GET" else b"", status if request.method == "HEAD" else 200)

    async def front(request: Request) -> Response:
        signed = f"http://{elsewhere}/signed"
        return RedirectResponse(signed, 307) if request.url.path == "/v2/moved" else await store(request)

    def head(path: str) -> int:
        call = Call("HEAD", transport.url(path), frozenset(), frozenset({200}))
        return transport.head(call, Deadline(10)).status

    with (
        strange(store) as elsewhere,
        strange(front) as address,
        contextlib.closing(transport_of(address, plain_http=True)) as transport,
    ):
        assert head("moved") == 200
        with pytest.raises(RegistryError):
            head("here")
