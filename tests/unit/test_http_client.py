"""Servers that answer what no good one does: each HTTP client of the library ends with an error of the library."""

import contextlib
import gzip
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import HttpUrl, SecretStr

from local_stack.ports import answers
from soci_pipeline import http_client
from soci_pipeline.errors import InvalidInput, SociPipelineError
from soci_pipeline.file_download import NotFetched, fetch
from soci_pipeline.http_client import HttpClient
from soci_pipeline.oci.digest import Digest
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.registry.auth import Credentials, FixedCredentials
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import BrokenAnswer
from soci_pipeline.webhook.forge import Forge
from soci_pipeline.webhook.outbox import StatusTarget
from soci_pipeline.webhook.secret_values import SecretSource
from soci_pipeline.webhook.sources.gitlab import GitLabSource
from soci_pipeline.webhook.sources.source import StatusSettings
from tests.support.registries import QUICK

LOCATIONS = [
    b"javascript:x",
    b"mailto:x@example.com",
    b"http://[bad/",
    b"http://[::1",
    b"http://127.0.0.1:99999/",
    b"http://127.0.0.1:port/",
    b"https://a..b/",
    b"https://" + b"a" * 70 + b".example/",
    b"https:///x",
    b"file:///etc/passwd",
    b"ftp://127.0.0.1/",
    b"data:text/plain,x",
    b"//",
    b"http://\xff\xfe/",
    b"https://xn--/",
    b"https://%00/",
    b"x" * 70_000,
]


def _answer(status: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    lines = [b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body), b"Connection: close"]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


ANSWERS = {
    "a charset that fails": _answer(b"500 No", b"Content-Type: text/plain; charset=undefined", body=b"words"),
    "a charset that is no text": _answer(b"400 No", b"Content-Type: application/json; charset=hex", body=b"zz"),
    "gzip that is none": _answer(b"200 OK", b"Content-Encoding: gzip", body=b"not gzip"),
    "JSON nested without end": _answer(b"200 OK", b"Content-Type: application/json", body=b"[" * 200_000),
    "JSON that is not UTF-8": _answer(b"200 OK", b"Content-Type: application/json", body=b'{"id": "\xff\xfe"}'),
    "bytes that are not HTTP": b"\x15\x03\x01\x00\x02\x02\x28 what is this\r\n\r\n",
    "a header without a name": b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "a length that is not a number": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc",
    "a body that is truncated": b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n{}",
    "chunks that are not chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a status that is not one": b"HTTP/1.1 99999 OK\r\n\r\n",
    "nothing": b"",
}


def answering(data: bytes) -> AbstractContextManager[str]:
    """A server that answers every request with the same bytes; yields its address."""
    return streaming(lambda: iter((data,)))


@contextmanager
def streaming(pieces: Callable[[], Iterator[bytes]]) -> Iterator[str]:
    """A server that answers every request with these pieces; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(5)
                    if connection.recv(65_536):
                        for piece in pieces():
                            connection.sendall(piece)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=5)


def _registry(address: str, _: Path) -> object:
    with RegistryClient(address, settings=QUICK) as client:
        return client.tags.list("a")


def _referrers(address: str, _: Path) -> object:
    with RegistryClient(address, settings=QUICK) as client:
        return client.referrers.list("a", Digest.of(b"x"))


def _prefect(address: str, _: Path) -> object:
    with PrefectApi(f"http://{address}/api", deadline_s=0) as api:
        return api.create_run("flow/deployment", {})


def _download(address: str, folder: Path) -> None:
    fetch(f"http://{address}/file", folder / "file", limit=100, sha256="0" * 64)


def _forge(address: str, folder: Path, token: bytes = b"do-not-show") -> None:
    (folder / "token").write_bytes(token)
    status = StatusSettings(token=SecretSource(file=folder / "token"), api_url=HttpUrl(f"http://{address}"))
    with Forge(GitLabSource.model_construct(kind="gitlab", name="gitlab"), status) as forge:
        forge.report(StatusTarget("team/app", "0" * 40), "COMPLETED", rule="r", link=None)


CLIENTS: dict[str, Callable[[str, Path], object]] = {
    "registry": _registry,
    "referrers": _referrers,
    "Prefect": _prefect,
    "download": _download,
    "forge": _forge,
}


@pytest.mark.parametrize("location", LOCATIONS, ids=lambda value: repr(value[:20]))
@pytest.mark.parametrize("name", CLIENTS)
def test_a_redirect_to_something_that_is_not_a_url_is_an_error_of_the_library(
    name: str, location: bytes, tmp_path: Path
) -> None:
    with answering(_answer(b"307 Moved", b"Location: " + location)) as address, pytest.raises(SociPipelineError):
        CLIENTS[name](address, tmp_path)
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", [name for name in CLIENTS if name != "forge"])
def test_an_answer_that_cannot_be_read_is_an_error_of_the_library(name: str, answer: str, tmp_path: Path) -> None:
    with answering(ANSWERS[answer]) as address, pytest.raises(SociPipelineError):
        CLIENTS[name](address, tmp_path)


@pytest.mark.parametrize(
    "answer", ["a charset that fails", "a charset that is no text", "gzip that is none", "nothing"]
)
def test_a_forge_whose_answer_cannot_be_read_is_an_error_of_the_library(answer: str, tmp_path: Path) -> None:
    with answering(ANSWERS[answer]) as address, pytest.raises(SociPipelineError) as caught:
        _forge(address, tmp_path)
    assert "do-not-show" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_answers_nonsense_on_a_port_is_no_error_for_whoever_looks(answer: str) -> None:
    with answering(ANSWERS[answer]) as address:
        assert answers(f"http://{address}/") in (True, False)


def test_a_port_that_redirects_to_something_that_is_not_a_url_does_not_answer() -> None:
    with answering(_answer(b"302 Found", b"Location: javascript:x")) as address:
        assert not answers(f"http://{address}/")


def test_a_bad_redirect_of_a_registry_is_named_once_and_not_tried_again() -> None:
    with answering(_answer(b"307 Moved", b"Location: javascript:x")) as address:
        with pytest.raises(BrokenAnswer, match="redirects to something that is not a URL: 'javascript:x'") as caught:
            _registry(address, Path())
        with pytest.raises(NotFetched, match="'javascript:x'") as fetched:
            _download(address, Path("/nonexistent"))
    assert not caught.value.temporary
    assert not fetched.value.temporary


@pytest.mark.parametrize("token", ["do-not-show\n", "do-not-show\r\nX: y", "do-not-sh\u00f6w", "do-not-show\0"])
def test_a_token_that_no_header_can_carry_is_not_shown(token: str, tmp_path: Path) -> None:
    credentials = FixedCredentials(Credentials(registry_token=SecretStr(token)))
    challenge = _answer(b"401 No", b'WWW-Authenticate: Bearer realm="http://127.0.0.1:9/"')
    with answering(challenge) as address, RegistryClient(address, settings=QUICK, credentials=credentials) as client:
        with pytest.raises(SociPipelineError) as caught:
            client.manifests.get("a", "v1")
        assert "do-not-sh" not in "".join(traceback.format_exception(caught.value))
        with pytest.raises(SociPipelineError) as caught:
            _forge(address, tmp_path, f"x{token}y".encode())
    assert "do-not-sh" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "127.0.0.1:99999"])
def test_a_host_that_no_connection_can_be_made_to_is_an_error_of_the_http_library(host: str) -> None:
    with HttpClient(trust_env=False) as client, pytest.raises(httpx.HTTPError):
        client.get(f"http://{host}/")


@pytest.mark.parametrize("proxy", ["ftp://user:do-not-show@127.0.0.1", "socks9://x"])
def test_a_proxy_that_cannot_be_used_is_named_without_its_url(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(InvalidInput, match="the proxy in the environment is not valid") as caught:
        HttpClient()
    assert "HTTPS_PROXY" in str(caught.value.advice)
    assert "do-not-show" not in "".join(traceback.format_exception(caught.value))


def test_no_cookie_is_kept() -> None:
    with (
        answering(_answer(b"200 OK", b"Set-Cookie: session=1; Path=/")) as address,
        HttpClient(trust_env=False) as client,
    ):
        client.get(f"http://{address}/")
        assert len(client.cookies) == 0


def _bomb() -> Iterator[bytes]:
    body = gzip.compress(bytes(96 << 20), 1, mtime=0)
    yield b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    yield body


def _endless() -> Iterator[bytes]:
    yield b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"100000\r\n" + bytes(1 << 20) + b"\r\n"


@pytest.mark.parametrize("answer", [_bomb, _endless])
@pytest.mark.parametrize("name", ["Prefect", "forge"])
def test_a_body_that_is_too_long_is_an_error_of_the_library(
    name: str, answer: Callable[[], Iterator[bytes]], tmp_path: Path
) -> None:
    with streaming(answer) as address, pytest.raises(SociPipelineError, match=r"does not answer .*ReadError|too long"):
        CLIENTS[name](address, tmp_path)


def test_a_body_that_comes_too_slowly_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def drip() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        while True:
            time.sleep(0.05)
            yield b"x"

    monkeypatch.setattr(http_client, "_BODY_SECONDS", 0.3)
    with streaming(drip) as address, HttpClient(trust_env=False) as client, pytest.raises(httpx.ReadError):
        client.get(f"http://{address}/")


def test_a_body_that_was_compressed_is_read_as_it_was() -> None:
    body = gzip.compress(b"some text", mtime=0)

    def compressed() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
        yield body

    with streaming(compressed) as address, HttpClient(trust_env=False) as client:
        answer = client.get(f"http://{address}/")
    assert (answer.text, answer.headers["x"], str(answer.url)) == ("some text", "1", f"http://{address}/")


def test_an_error_that_quotes_lone_surrogates_of_a_server_can_be_printed() -> None:
    entry = b'{"mediaType":"a/\\ud800","digest":"x","size":1}'
    listed = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}' % entry
    with (
        answering(_answer(b"200 OK", body=listed)) as address,
        RegistryClient(address, settings=QUICK) as client,
        pytest.raises(SociPipelineError) as caught,
    ):
        client.referrers.list("a", Digest.of(b"x"))
    assert str(caught.value).encode()


def test_trusted_certificates_that_cannot_be_read_fail_the_first_request_over_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    with HttpClient() as client:
        with pytest.raises(httpx.ConnectError, match=r"cannot read this machine's trusted certificates: No such file"):
            client.get("https://127.0.0.1:9/")
        with pytest.raises(httpx.ConnectError, match="refused"):
            client.get("http://127.0.0.1:9/")
