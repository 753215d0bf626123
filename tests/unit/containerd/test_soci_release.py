import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from soci_pipeline.containerd.soci_release import ensure_soci, environment_with_soci, release_address
from soci_pipeline.errors import DamagedContent, HostileArchive, InvalidInput, ToolMissing
from tests.support.archives import raw_tar
from tests.support.file_server import FileServer, serving_files
from tests.support.images import AMD64, ARM64

PROGRAM = b"#!/bin/sh\necho soci version v0.15.0 abc\n"
PATH = "/v0.15.0/soci-snapshotter-0.15.0-linux-amd64.tar.gz"


def release(program: bytes = PROGRAM, *, name: str = "soci", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    entries = [
        ("soci-snapshotter-grpc", tarfile.REGTYPE, b"other", ""),
        (name, kind, program if kind == tarfile.REGTYPE else b"", link),
        ("../../outside", tarfile.REGTYPE, b"hostile", ""),
    ]
    return gzip.compress(raw_tar(entries), mtime=0)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving_files({PATH: (200, release())}) as files:
        yield files


def fetched(server: FileServer, cache: Path, *, sha256: str | None = None) -> Path:
    body = server.answers[PATH][1]
    digest = sha256 or hashlib.sha256(body).hexdigest()
    return ensure_soci("0.15.0", sha256=digest, cache=cache, platform=AMD64, base_url=server.address)


def test_the_address_follows_the_release_pages_pattern() -> None:
    address = release_address("v0.15.0", ARM64, base_url="https://mirror.example/soci/")
    assert address == "https://mirror.example/soci/v0.15.0/soci-snapshotter-0.15.0-linux-arm64.tar.gz"


@pytest.mark.parametrize("version", ["latest", "0.15", "../0.15.0", "0.15.0/x", ""])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(InvalidInput, match="not a soci"):
        release_address(version, AMD64)


@pytest.mark.parametrize("base_url", ["file:///etc", "mirror.example", "", "https://", "https://mirror.example:99999"])
def test_what_is_no_address_is_refused(base_url: str) -> None:
    with pytest.raises(InvalidInput, match="not a valid URL:"):
        release_address("0.15.0", AMD64, base_url=base_url)


def test_only_the_program_is_taken_out_and_it_can_be_run(server: FileServer, tmp_path: Path) -> None:
    program = fetched(server, tmp_path / "cache")
    assert program.read_bytes() == PROGRAM
    assert program.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in program.parent.iterdir()] == ["soci"]
    assert not (tmp_path / "outside").exists()


def test_it_is_kept_for_the_next_run(server: FileServer, tmp_path: Path) -> None:
    assert fetched(server, tmp_path) == fetched(server, tmp_path)
    assert server.asked == [PATH]


def test_another_content_is_refused_before_it_is_unpacked(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DamagedContent, match="has the digest"):
        fetched(server, tmp_path, sha256="0" * 64)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_sha256_that_is_none_is_refused(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="64 lower-case hex digits"):
        fetched(server, tmp_path, sha256="../../x")


@pytest.mark.parametrize(("status", "temporary"), [(404, False), (408, True), (429, True), (503, True)])
def test_a_refusal_names_the_address_and_the_package(
    server: FileServer, tmp_path: Path, status: int, temporary: bool
) -> None:
    server.answers[PATH] = (status, b"")
    with pytest.raises(ToolMissing, match=f"status {status}") as caught:
        fetched(server, tmp_path)
    assert caught.value.temporary is temporary
    assert "soci-snapshotter" in str(caught.value)


def test_a_server_that_is_not_there_is_temporary(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing) as caught:
        ensure_soci("0.15.0", sha256="0" * 64, cache=tmp_path, platform=AMD64, base_url="http://127.0.0.1:9")
    assert caught.value.temporary


@pytest.mark.parametrize(("kind", "link"), [(tarfile.SYMTYPE, "/bin/sh"), (tarfile.LNKTYPE, "/bin/sh")])
def test_a_program_that_is_a_link_is_refused(server: FileServer, tmp_path: Path, kind: bytes, link: str) -> None:
    server.answers[PATH] = (200, release(kind=kind, link=link))
    with pytest.raises(HostileArchive):
        fetched(server, tmp_path)


@pytest.mark.parametrize(
    "body",
    [b"no archive", release()[:40], release(name="other"), gzip.compress(b"")],
    ids=["no gzip", "cut off", "another program", "empty"],
)
def test_an_archive_without_the_program_is_damage(server: FileServer, tmp_path: Path, body: bytes) -> None:
    server.answers[PATH] = (200, body)
    with pytest.raises(DamagedContent):
        fetched(server, tmp_path)


def test_a_soci_on_the_path_is_taken_before_any_release(tmp_path: Path) -> None:
    (tmp_path / "soci").write_bytes(PROGRAM)
    (tmp_path / "soci").chmod(0o755)
    env = {"PATH": str(tmp_path)}
    assert environment_with_soci(env, version="0.15.0", sha256="0" * 64, cache=tmp_path) == env


def test_without_a_configured_release_the_environment_stays(tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path)}
    assert environment_with_soci(env, version=None, sha256=None, cache=tmp_path) == env


def test_a_release_comes_first_on_the_path(server: FileServer, tmp_path: Path) -> None:
    body = io.BytesIO(server.answers[PATH][1]).getvalue()
    server.answers = {path.replace("amd64", arch): (200, body) for path in (PATH,) for arch in ("amd64", "arm64")}
    env = environment_with_soci(
        {"PATH": str(tmp_path / "empty")},
        version="0.15.0",
        sha256=hashlib.sha256(body).hexdigest(),
        cache=tmp_path / "cache",
        base_url=server.address,
    )
    assert (Path(env["PATH"].split(":")[0]) / "soci").read_bytes() == PROGRAM
