"""Redirects, Locations and answers of registries that are broken or mean harm."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import (
    BrokenAnswer,
    ContentMismatch,
    RegistryError,
    RegistryUnreachable,
)
from soci_pipeline.registry.server import ServerSettings, serving
from tests.support.certificates import certificate
from tests.support.registries import CREDENTIALS, LOGIN, QUICK, described, push_image
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
            assert client.read_blob("a", BLOB) == DATA
            assert client.read_range("a", BLOB.digest, 0, len(DATA)) == DATA
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
            client.read_blob("a", BLOB)
    assert "s3cret" not in f"{caught.value} {caught.value.url}"


def test_a_redirect_that_leads_in_a_circle_ends() -> None:
    async def circle(request: Request) -> Response:
        return RedirectResponse(str(request.url), 307)

    with (
        strange(circle) as address,
        RegistryClient(address, settings=QUICK) as client,
        pytest.raises(BrokenAnswer, match="redirects more than"),
    ):
        client.read_blob("a", BLOB)


@pytest.mark.parametrize(
    "location",
    ["", "http://example.com/plain", "ftp://127.0.0.1/x", "http://user:pw@127.0.0.1/x", "http://[bad/", "x" * 9000],
)
def test_a_location_that_is_not_to_be_trusted_is_not_followed(location: str) -> None:
    async def answer(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(status_code=404)
        return Response(status_code=202, headers={"Location": location})

    with strange(answer) as address, RegistryClient(address, settings=QUICK) as client, pytest.raises(BrokenAnswer):
        client.upload_blob("a", BLOB, lambda: io.BytesIO(DATA))


def test_a_manifest_above_four_mebibytes_is_not_read_to_its_end() -> None:
    sent = 0

    async def endless(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < 256 << 20 and not await request.is_disconnected():
                sent += 1 << 16
                yield b" " * (1 << 16)

        return StreamingResponse(body())

    with (
        strange(endless) as address,
        RegistryClient(address, settings=QUICK) as client,
        pytest.raises(BrokenAnswer, match="more than"),
    ):
        client.get_manifest("a", "v1")
    assert sent < 64 << 20


def test_a_blob_that_is_longer_or_shorter_than_its_descriptor_is_refused() -> None:
    async def answer(request: Request) -> Response:
        return Response(DATA)

    with strange(answer) as address, RegistryClient(address, settings=QUICK) as client:
        for size in (len(DATA) - 1, len(DATA) + 1):
            with pytest.raises(ContentMismatch):
                client.read_blob("a", BLOB.annotated(size=size))
        with pytest.raises(ContentMismatch):
            client.read_blob("a", BLOB.annotated(digest=Digest.of(b"other")))
        with pytest.raises(InvalidInput):
            client.read_blob("a", BLOB, limit=3)


def test_a_manifest_that_is_not_its_digest_is_refused() -> None:
    async def answer(request: Request) -> Response:
        return JSONResponse({}, headers={"Docker-Content-Digest": Digest.of(b"promised")})

    with strange(answer) as address, RegistryClient(address, settings=QUICK) as client:
        for reference in ("v1", Digest.of(b"other")):
            with pytest.raises(ContentMismatch):
                client.get_manifest("a", reference)


def test_a_list_of_tags_that_never_ends_is_given_up() -> None:
    async def circle(request: Request) -> Response:
        return JSONResponse({"tags": ["t"]}, headers={"Link": '</v2/a/tags/list>; rel="next"'})

    async def away(request: Request) -> Response:
        return JSONResponse({"tags": ["t"]}, headers={"Link": '<http://example.com/v2/a/tags/list>; rel="next"'})

    for handler, words in ((circle, "end"), (away, "another host")):
        with (
            strange(handler) as address,
            RegistryClient(address, settings=QUICK) as client,
            pytest.raises(BrokenAnswer, match=words),
        ):
            client.list_tags("a")


def test_a_web_server_that_is_no_registry_is_named() -> None:
    async def nothing(request: Request) -> Response:
        return Response("<html>", status_code=404)

    with (
        strange(nothing) as address,
        RegistryClient(address, settings=QUICK) as client,
        pytest.raises(BrokenAnswer, match="no OCI registry"),
    ):
        client.ping()


def test_nothing_that_listens_is_unreachable_and_may_come_back() -> None:
    with RegistryClient("127.0.0.1:1", settings=QUICK) as client, pytest.raises(RegistryUnreachable) as caught:
        client.ping()
    assert caught.value.temporary


def test_tls_takes_an_own_authority_and_refuses_an_unknown_one(tmp_path: Path) -> None:
    own = certificate(tmp_path)
    with serving(tmp_path / "r", tls_cert=own.certificate, tls_key=own.key) as address:
        with RegistryClient(address, settings=QUICK, ca_file=own.certificate) as client:
            push_image(client, "v1")
        with RegistryClient(address, settings=QUICK, plain_http=False) as client:
            with pytest.raises(RegistryUnreachable, match="CERTIFICATE_VERIFY_FAILED") as caught:
                client.ping()
            assert not caught.value.temporary


def test_bearer_over_tls_takes_the_realm_of_its_own_host(tmp_path: Path) -> None:
    own = certificate(tmp_path)
    settings = ServerSettings(login=LOGIN)
    with (
        serving(tmp_path / "r", tls_cert=own.certificate, tls_key=own.key, settings=settings) as address,
        RegistryClient(address, settings=QUICK, ca_file=own.certificate, credentials=CREDENTIALS) as client,
    ):
        push_image(client, "v1")


def test_a_file_that_holds_no_certificates_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(InvalidInput, match=r"ca\.pem"):
        RegistryClient("r.example.com", ca_file=tmp_path / "ca.pem")


def test_beyond_loopback_tls_is_the_default() -> None:
    with RegistryClient("r.example.com") as client, RegistryClient("r.example.com", plain_http=True) as plain:
        assert (client._transport.base.scheme, plain._transport.base.scheme) == ("https", "http")
    with RegistryClient("localhost:5000") as local, RegistryClient("docker.io") as hub:
        assert local._transport.base.scheme == "http"
        assert hub._transport.base.host == "registry-1.docker.io"
