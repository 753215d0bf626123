"""Hostile senders against the running service: what each can cost is bounded, and the next honest push gets through."""

import contextlib
import gzip
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from soci_pipeline.webhook.service import serving
from tests.support import webhook as support

LIMITS = {"body_bytes": 4096, "body_seconds": 0.5, "requests_per_minute": 100_000, "events_per_minute": 100_000}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    folder = tmp_path_factory.mktemp("receiver")
    github = support.document(folder)["sources"][0]
    keys = github["secrets"]
    sources = [
        github,
        {"kind": "gitlab", "name": "classic", "tokens": keys},
        {"kind": "gitlab", "name": "signing", "signing_tokens": keys},
    ]
    with serving(support.configuration(folder, sources=sources, limits=LIMITS)) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


def said(address: tuple[str, int], *pieces: bytes, pause: float = 0.0) -> bytes:
    """The whole answer to some bytes; empty where the connection was closed without one."""
    with socket.create_connection(address, timeout=20) as connection:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                answer += data
        return answer


def request(body: bytes, *headers: tuple[str, str], source: str = "github") -> bytes:
    lines = [f"POST /webhooks/{source} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
    text = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers)])
    return text.encode("latin-1") + b"\r\n\r\n" + body


def signed(body: bytes, **changes: str) -> list[tuple[str, str]]:
    return list((support.github_headers(body) | {name.replace("_", "-"): v for name, v in changes.items()}).items())


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def honest(address: tuple[str, int]) -> int:
    """The status of a push that nobody has sent before."""
    body = json.dumps(support.github_push(before=f"{time.monotonic_ns():040x}")).encode()
    return status(said(address, request(body, *signed(body))))


def test_connections_that_say_nothing_keep_nobody_out(address: tuple[str, int]) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(address, timeout=20))
        support.until(lambda: honest(address) == 202, seconds=20)


def test_connections_that_say_nothing_delay_nobody(address: tuple[str, int]) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(socket.create_connection(address, timeout=20))
        before = time.monotonic()
        assert [honest(address) for _ in range(3)] == [202, 202, 202]
        assert time.monotonic() - before < 10


@pytest.mark.parametrize("head", [b"POST /webhooks/github HT", b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\n", b""])
def test_a_head_that_does_not_end_is_cut_off(address: tuple[str, int], head: bytes) -> None:
    drip = [b"X-A: b\r\n"] * 6 if head.endswith(b"\r\n") else []
    assert said(address, head, *drip, pause=0.2) == b""


def test_a_second_head_on_a_connection_is_bounded_too(address: tuple[str, int]) -> None:
    first = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = said(address, first, b"POST /webhooks/gi", pause=0.3)
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 1e3\r\n",
        "Content-Length: ²\r\n".encode("latin-1"),
        b"Content-Length: " + b"9" * 5000 + b"\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"X-Hub-Signature-256 : sha256=0\r\n",
        b"X: " + b"a" * (1 << 20) + b"\r\n",
    ],
)
def test_heads_that_mean_two_things_or_none_are_refused(address: tuple[str, int], head: bytes) -> None:
    answer = said(address, b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + head + b"\r\nhello")
    assert status(answer) in {0, 400, 413, 431, 501}


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 12",
        b"HTTP/1.0\r\nTransfer-Encoding: chunked",
    ],
)
def test_a_body_whose_length_is_given_in_two_ways_is_refused_and_the_connection_closed(
    address: tuple[str, int], head: bytes
) -> None:
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for path in (b"/webhooks/github", b"/webhooks/nobody", b"/healthz"):
        answer = said(address, b"POST " + path + b" " + head + b"\r\nHost: x\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + smuggled)
        assert status(answer) == 400
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("path", ["/healthz/", "/webhooks/github/", "/metrics/", "//evil.example/", "/openapi.json/"])
def test_no_answer_redirects_to_a_host_that_the_sender_names(address: tuple[str, int], path: str) -> None:
    for method in ("GET", "POST"):
        head = f"{method} {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        answer = said(address, head.encode())
        assert status(answer) in {404, 405}
        assert b"evil.example" not in answer


@pytest.mark.first
def test_chunks_without_an_end_are_cut_off_by_time_and_by_size(address: tuple[str, int]) -> None:
    head = b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert status(said(address, head, b"5\r\nhello\r\n")) == 408
    chunk = b"400\r\n" + b"x" * 0x400 + b"\r\n"
    assert status(said(address, head, *[chunk] * 8)) == 413


def test_many_bodies_that_do_not_end_fill_no_more_than_their_share_of_memory(address: tuple[str, int]) -> None:
    started = b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n" + b"x" * 4000
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(60)]
        for connection in connections:
            connection.sendall(started)
        answers = [status(connection.recv(200)) for connection in connections]
    assert set(answers) == {408, 503}
    assert honest(address) == 202


def test_a_signature_that_is_given_twice_is_none(address: tuple[str, int]) -> None:
    body = json.dumps(support.github_push()).encode()
    wrong = ("x-hub-signature-256", "sha256=" + "0" * 64)
    right = signed(body)
    for headers in ([wrong, *right], [*right, wrong], [*right, right[-1]]):
        assert status(said(address, request(body, *headers))) == 401


@pytest.mark.parametrize(
    "value", ["sha256=\xff\xfe", "sha256=" + "\xb2" * 64, "sha1=0", "sha256=" + "0" * 5000, "sha256=", " "]
)
def test_a_signature_of_strange_characters_is_refused(address: tuple[str, int], value: str) -> None:
    body = b"{}"
    assert status(said(address, request(body, *signed(body, x_hub_signature_256=value)))) == 401


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 4000,
        b'{"a":' * 600 + b"1" + b"}" * 600,
        b'{"ref": ' + b"9" * 4000 + b"}",
        b'{"commits": NaN}',
        b'{"ref": "\\ud800"}',
        b"\xff\xfe{}",
        b"",
        b"\x00" * 100,
        gzip.compress(json.dumps(support.github_push()).encode(), mtime=0),
    ],
)
def test_a_signed_body_that_is_a_bomb_or_no_json_is_refused_as_it_is(address: tuple[str, int], body: bytes) -> None:
    assert status(said(address, request(body, *signed(body, content_encoding="gzip")))) == 422
    assert honest(address) == 202


def test_gitlabs_numbers_may_be_as_long_as_they_like(address: tuple[str, int]) -> None:
    push = support.gitlab_push()
    text = json.dumps(push).replace(str(push["project"]["id"]), "9" * 3000)
    headers = {"content-type": "application/json", "x-gitlab-event": "Push Hook"}
    token = headers | {"x-gitlab-token": support.SECRET.decode()}
    assert status(said(address, request(text.encode(), *token.items(), source="classic"))) == 422


def _gitlab(address: tuple[str, int], source: str, headers: list[tuple[str, str]], body: bytes) -> int:
    plain = [("content-type", "application/json"), ("x-gitlab-event", "Push Hook")]
    return status(said(address, request(body, *plain, *headers, source=source)))


def test_neither_mode_of_gitlab_takes_the_proof_of_the_other(address: tuple[str, int]) -> None:
    body = json.dumps(support.gitlab_push()).encode()
    token = [("x-gitlab-token", support.SECRET.decode())]
    standard = _standard(body)
    assert _gitlab(address, "classic", token, body) == 202
    assert _gitlab(address, "signing", standard, body) == 202
    assert _gitlab(address, "signing", token, body) == 401
    assert _gitlab(address, "classic", standard, body) == 401
    assert _gitlab(address, "classic", [*token, *token], body) == 401
    assert _gitlab(address, "classic", [("x-gitlab-token", support.SECRET.decode()[:-1])], body) == 401


def test_of_several_signatures_ten_are_looked_at_and_one_must_hold(address: tuple[str, int]) -> None:
    body = json.dumps(support.gitlab_push()).encode()
    headers = dict(_standard(body))
    right, wrong = headers["webhook-signature"], "v1,AAAA"
    for value, expected in (
        (f"{wrong} {right}", 202),
        (f"v1a,{right[3:]} {wrong}", 401),
        (" ".join([wrong] * 10 + [right]), 401),
        (f"{right},{wrong}", 401),
    ):
        changed = headers | {"webhook-signature": value}
        assert _gitlab(address, "signing", list(changed.items()), body) == expected


@pytest.mark.parametrize("skew", [-400, 400, 10**11])
def test_a_clock_that_is_too_far_off_is_refused_in_both_directions(address: tuple[str, int], skew: int) -> None:
    body = json.dumps(support.gitlab_push()).encode()
    assert _gitlab(address, "signing", _standard(body, skew=skew), body) == 401


def _standard(body: bytes, *, skew: float = 0) -> list[tuple[str, str]]:
    headers: dict[str, Any] = support.standard_headers(body, time.time() + skew)
    return [(name, value) for name, value in headers.items() if name != "content-type"]


def test_the_service_is_well_after_all_that(address: tuple[str, int]) -> None:
    answer = httpx.get(f"http://{address[0]}:{address[1]}/healthz")
    assert answer.status_code == 200
    assert answer.json()["threads"] == {"dispatch": True, "outcomes": True}
