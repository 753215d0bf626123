"""The embedded registry under clients that hold connections, stall, or send requests that can be read in two ways."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from soci_pipeline.http_server.connections import Connections, Place, peer_of
from soci_pipeline.registry.server import ServerSettings, serving
from tests.support.certificates import certificate
from tests.support.registries import LOGIN, leftovers
from tests.support.wire import API, start, wire

GET = b"GET /v2/ HTTP/1.1\r\nHost: registry\r\n\r\n"


@contextlib.contextmanager
def connection(address: str, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10, source_address=(source, 0)) as opened:
        yield opened


def answer(opened: socket.socket) -> bytes:
    """The answer to a request for ``{}``; empty where the connection is closed."""
    received = b""
    with contextlib.suppress(ConnectionError):
        opened.sendall(GET)
        while not received.endswith(b"{}"):
            piece = opened.recv(4096)
            if not piece:
                break
            received += piece
    return received


def ended(opened: socket.socket) -> bool:
    with contextlib.suppress(ConnectionError):
        return opened.recv(1) == b""
    return True


@pytest.mark.parametrize("begun", [b"", GET[:-2]], ids=["nothing sent", "half a head"])
def test_three_hundred_half_open_connections_keep_nobody_out(tmp_path: Path, begun: bytes) -> None:
    with serving(tmp_path) as address, contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connection(address)).sendall(begun)
        for source in ("127.0.0.1", "127.0.0.2"):
            with connection(address, source) as opened:
                assert answer(opened).startswith(b"HTTP/1.1 200")


def test_half_open_tls_connections_keep_nobody_out(tmp_path: Path) -> None:
    own, settings = certificate(tmp_path), ServerSettings(connections_per_address=5)
    folder = tmp_path / "registry"
    with (
        serving(folder, settings=settings, tls_cert=own.certificate, tls_key=own.key) as address,
        contextlib.ExitStack() as stack,
    ):
        silent = [stack.enter_context(connection(address)) for _ in range(20)]
        assert httpx.get(f"https://{address}/v2/", verify=False, trust_env=False).status_code == 200
        assert all(ended(each) for each in silent[:15])


def test_the_longest_idle_connection_of_an_address_makes_room_for_its_next_one(tmp_path: Path) -> None:
    with (
        serving(tmp_path, settings=ServerSettings(connections_per_address=2)) as address,
        connection(address) as first,
        connection(address) as second,
        connection(address, "127.0.0.2") as other,
    ):
        assert all(answer(each).startswith(b"HTTP/1.1 200") for each in (second, first, other))
        with connection(address) as third:
            assert answer(third).startswith(b"HTTP/1.1 200")
            assert ended(second)
            assert all(answer(each).startswith(b"HTTP/1.1 200") for each in (first, other))


def test_connections_with_a_request_under_way_keep_out_others_of_their_address_alone(tmp_path: Path) -> None:
    with wire(tmp_path) as http:
        start(http)
    (upload,) = leftovers(tmp_path)
    patch = f"PATCH {API}/blobs/uploads/{upload.name} HTTP/1.1\r\nHost: r\r\nContent-Length: 9\r\n\r\nx".encode()
    with (
        serving(tmp_path, settings=ServerSettings(connections_per_address=2)) as address,
        connection(address, "127.0.0.3") as first,
        connection(address, "127.0.0.3") as second,
    ):
        for each in (first, second):
            each.sendall(patch)
        time.sleep(0.2)
        with connection(address, "127.0.0.3") as third:
            assert answer(third) == b""
        with connection(address) as other:
            assert answer(other).startswith(b"HTTP/1.1 200")
        first.close()
        time.sleep(0.2)
        with connection(address, "127.0.0.3") as third:
            assert answer(third).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /v2/ HT", b"PATCH /v2/a/blobs/uploads/x HTTP/1.1\r\nHost: r\r\nContent-Length: 9\r\n\r\nx"],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_client_that_stalls_loses_its_connection(tmp_path: Path, sent: bytes) -> None:
    with wire(tmp_path, settings=ServerSettings(stall_seconds=0.2)) as http:
        location = start(http)
        address = f"{http.base_url.host}:{http.base_url.port}"
        with connection(address) as opened:
            opened.sendall(sent.replace(b"/v2/a/blobs/uploads/x", location.encode()))
            opened.settimeout(5)
            assert ended(opened)


def test_a_client_that_does_not_read_its_answer_loses_its_connection(tmp_path: Path) -> None:
    with wire(tmp_path, settings=ServerSettings(stall_seconds=0.2)) as http:
        start(http)
        blob = tmp_path / "team+app" / "blobs" / "sha256" / ("0" * 64)
        with blob.open("wb") as file:
            file.truncate(64 << 20)
        with connection(f"{http.base_url.host}:{http.base_url.port}") as opened:
            opened.sendall(f"GET {API}/blobs/sha256:{blob.name} HTTP/1.1\r\nHost: r\r\n\r\n".encode())
            time.sleep(1)
            received = 0
            with contextlib.suppress(ConnectionError):
                while piece := opened.recv(1 << 20):
                    received += len(piece)
            assert 0 < received < 64 << 20


def test_a_client_that_is_slow_keeps_its_connection(tmp_path: Path) -> None:
    with wire(tmp_path, settings=ServerSettings(stall_seconds=0.4)) as http:
        location = start(http)

        def body() -> Iterator[bytes]:
            for _ in range(10):
                time.sleep(0.15)
                yield b"x"

        assert http.patch(location, content=body()).status_code == 202
        assert http.get(location).headers["range"] == "0-9"


CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1\r\nHost: r\r\nContent-Length: 4\r\n" + CHUNKED,
        b"HTTP/1.1\r\nHost: r\r\n" + CHUNKED + b"content-length: 0\r\n",
        b"HTTP/1.0\r\nHost: r\r\n" + CHUNKED,
        b"HTTP/1.1\r\nHost: r\r\nContent-Length: 4\r\nContent-Length: 5\r\n",
        b"HTTP/1.1\r\nHost: r\r\nContent-Length: -4\r\n",
    ],
    ids=["both", "both, reversed", "chunks in HTTP/1.0", "two lengths", "a negative length"],
)
@pytest.mark.parametrize("path", [b"/v2/", b"/token", b"/elsewhere", API.encode() + b"/blobs/uploads/"])
def test_a_request_whose_end_is_ambiguous_is_rejected_and_nothing_after_it_is_read(
    tmp_path: Path, head: bytes, path: bytes
) -> None:
    request = b"POST " + path + b" " + head + b"\r\n0\r\n\r\n" + GET
    with serving(tmp_path, settings=ServerSettings(login=LOGIN)) as address, connection(address) as opened:
        opened.sendall(request)
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := opened.recv(4096):
                received += piece
    assert received.startswith(b"HTTP/1.1 400")
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("host", ['evil"', "a b", "user@evil", "evil/path", "evil?x", "evil,b", "a:b", "[::1", ""])
def test_a_host_that_is_not_a_host_and_a_port_is_rejected(tmp_path: Path, host: str) -> None:
    with wire(tmp_path, settings=ServerSettings(login=LOGIN)) as http:
        answer = http.get("/v2/", headers={"Host": host})
        assert answer.status_code == 400
        assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize("path", ["/token/", "/v2//", f"{API}/tags/list/", f"{API}/blobs/uploads", "/token//evil"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_redirects_and_no_location_names_the_host_of_the_request(
    tmp_path: Path, path: str, method: str
) -> None:
    with wire(tmp_path) as http:
        answer = http.request(method, path, headers={"Host": "evil.example"}, follow_redirects=False)
        assert not 300 <= answer.status_code < 400
        assert "evil.example" not in str(answer.headers)


def test_a_challenge_names_the_host_by_which_the_client_reached_the_registry(tmp_path: Path) -> None:
    with wire(tmp_path, settings=ServerSettings(login=LOGIN)) as http:
        for host in ("registry.example:5000", "[::1]:80", "localhost"):
            answer = http.get("/v2/", headers={"Host": host})
            assert f'realm="http://{host}/token"' in answer.headers["www-authenticate"]


def test_no_address_takes_more_than_half_of_all_places() -> None:
    table = Connections(100, most=4)

    def admit(peer: str) -> Place | None:
        return table.admit(peer, lambda: None)

    places = [admit(peer) for peer in ("a", "a", "b", "b")]
    (_, second, third, _) = taken = [each for each in places if each is not None]
    assert len(taken) == 4
    for each in taken:
        each.busy()
    assert not admit("a")
    # All places are taken by requests under way: there is none for another address either.
    assert not admit("c")
    second.idle()
    assert admit("c")
    third.leave()
    assert admit("b")


def test_the_addresses_of_one_ipv6_network_count_together() -> None:
    assert peer_of("2001:db8::1") == peer_of("2001:db8::ffff:2%eth0")
    assert peer_of("2001:db8:0:1::1") != peer_of("2001:db8::1")
    assert peer_of("192.0.2.1") != peer_of("192.0.2.2")
