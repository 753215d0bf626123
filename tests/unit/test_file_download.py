"""Files from an address, from a server on loopback: what is left, and what is said where they cannot be had."""

import hashlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.errors import DamagedContent, DiskFull, InvalidInput
from soci_pipeline.file_download import NotFetched, check_address, fetch
from tests.support.file_server import FileServer, serving_files
from tests.support.webhook import Recorded, loopback

BODY = b"an archive"
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving_files({"/file": (200, BODY)}) as files:
        yield files


def test_a_file_is_fetched_and_compared(server: FileServer, tmp_path: Path) -> None:
    fetch(f"{server.address}/file", tmp_path / "file", limit=len(BODY), sha256=SHA256)
    assert (tmp_path / "file").read_bytes() == BODY


def test_another_content_and_too_large_a_one_leave_nothing(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DamagedContent, match=SHA256):
        fetch(f"{server.address}/file", tmp_path / "file", limit=100, sha256="0" * 64)
    with pytest.raises(InvalidInput, match=f"larger than {len(BODY) - 1} bytes"):
        fetch(f"{server.address}/file", tmp_path / "file", limit=len(BODY) - 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "temporary"),
    [(401, False), (403, False), (404, False), (408, True), (425, True), (429, True), (500, True), (503, True)],
)
def test_a_refusal_says_whether_it_passes(server: FileServer, tmp_path: Path, status: int, temporary: bool) -> None:
    server.answers["/file"] = (status, b"no")
    with pytest.raises(NotFetched, match=f"answered with status {status}") as caught:
        fetch(f"{server.address}/file", tmp_path / "file", limit=100)
    assert caught.value.temporary is temporary
    assert list(tmp_path.iterdir()) == []


def test_no_secret_of_an_address_is_shown(tmp_path: Path) -> None:
    with pytest.raises(NotFetched) as caught:
        fetch("http://user:hush@127.0.0.1:9/file?token=hush#hush", tmp_path / "file", limit=100)
    assert caught.value.temporary
    assert "http://127.0.0.1:9/file" in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("status", [404, 503])
def test_a_refusal_shows_no_secret_of_an_address_nor_of_the_one_it_was_sent_on_to(
    server: FileServer, tmp_path: Path, status: int
) -> None:
    address = f"{server.address}/file?token=hush".replace("http://", "http://user:hush@")
    server.answers |= {"/file": (302, b"/store?signature=hush"), "/store": (status, b"no")}
    with pytest.raises(NotFetched, match=f"answered with status {status}") as caught:
        fetch(address, tmp_path / "file", limit=100)
    assert server.asked == ["/file?token=hush", "/store?signature=hush"]
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_a_full_disk_is_named(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match=str(tmp_path)):
        fetch(f"{server.address}/file", tmp_path / "file", limit=100)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host/file",
        "ftp://host/file",
        "file:///etc/passwd",
        "http://",
        "https://user:hush@host:99999/file",
        "https://user:hush@host:port/file",
        "http://[::1/file",
        "http://a b/file",
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_sent(address: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not a valid URL:") as caught:
        check_address(address)
    assert "hush" not in str(caught.value)
    with pytest.raises(InvalidInput, match="not a valid URL:"):
        fetch(address, tmp_path / "file", limit=100)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_login_of_an_address_does_not_follow_a_redirect_to_another_port(tmp_path: Path, status: int) -> None:
    logins: list[tuple[str, str | None]] = []

    def note(name: str, request: Recorded) -> None:
        logins.append((name, request.headers.get("authorization")))

    def elsewhere(request: Recorded) -> tuple[int, Any]:
        note("there", request)
        return 200, BODY

    with loopback(elsewhere) as there:

        def first(request: Recorded) -> tuple[int, Any, dict[str, str]]:
            note("here", request)
            return status, {}, {"Location": f"{there}/file"}

        with loopback(first) as here:
            address = f"{here}/file".replace("http://", "http://user:hush@")
            fetch(address, tmp_path / "file", limit=len(BODY), sha256=SHA256)
    assert [name for name, login in logins if login] == ["here"]
    assert logins[-1] == ("there", None)
