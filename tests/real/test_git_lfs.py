"""Files in Git LFS with the real git-lfs: from a server over HTTP, and from a repository on this machine."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from pydantic import SecretStr

from local_stack.toolchain import Toolchain
from soci_pipeline.git import source
from soci_pipeline.git.sign_in import GitCredentials
from tests.support.git_http import served_over_http
from tests.support.git_repositories import Repository, repository
from tests.support.lfs_server import LfsServer, lfs_server

LOGIN = GitCredentials(username="robot", password=SecretStr("hunter2"))
MODEL = os.urandom(3 << 20)


@pytest.fixture
def app(
    tmp_path: Path,
    toolchain: Toolchain,
    or_skip: Callable[[], AbstractContextManager[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> Repository:
    """A repository whose user has set git-lfs up; ``root/app.git`` is a bare copy of it without the contents."""
    with or_skip():
        env = toolchain.ensure(["git-lfs"])
    monkeypatch.setenv("PATH", env["PATH"])
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = repository(tmp_path / "app")
    made.git("lfs", "install")
    made.git("lfs", "track", "*.bin")
    (made.path / "deep").mkdir()
    for name in ("model.bin", "deep/copy.bin"):
        (made.path / name).write_bytes(MODEL)
    made.commit({"Dockerfile": "FROM scratch\n"})
    assert made.git("cat-file", "-p", "HEAD:model.bin").startswith("version https://git-lfs")
    made.git("init", "--quiet", "--bare", str(tmp_path / "root/app.git"))
    made.git("push", "--quiet", "--no-verify", str(tmp_path / "root/app.git"), "main")
    return made


def _robot(path: str, user: str, password: str) -> bool:
    return (user, password) == ("robot", "hunter2")


def _server(*contents: bytes) -> LfsServer:
    return LfsServer(list(contents), lambda user, password: (user, password) == ("robot", "hunter2"))


def _check_out(tmp_path: Path, url: str, credentials: GitCredentials | None = LOGIN) -> Path:
    found = source.resolve(url, "main", credentials=credentials)
    return source.check_out(found, tmp_path / "tree", credentials=credentials)


@pytest.mark.usefixtures("app")
def test_git_lfs_fetches_with_the_login_of_the_source(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = _server(MODEL)
    with served_over_http(tmp_path / "root", _robot, lfs=server) as address:
        tree = _check_out(tmp_path, f"{address}/app.git")
    assert (tree / "model.bin").read_bytes() == (tree / "deep/copy.bin").read_bytes() == MODEL
    assert set(server.logins) == {"robot:hunter2"}
    assert caplog.text == ""
    assert not (tmp_path / ".git-credentials").exists()


def test_git_lfs_copies_from_a_repository_on_this_machine(app: Repository, tmp_path: Path) -> None:
    tree = _check_out(tmp_path, str(app.path), None)
    assert (tree / "model.bin").read_bytes() == MODEL


@pytest.mark.usefixtures("app")
def test_a_server_without_the_files_leaves_pointers_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with served_over_http(tmp_path / "root", _robot, lfs=_server()) as address:
        tree = _check_out(tmp_path, f"{address}/app.git")
    assert (tree / "model.bin").read_text().startswith("version https://git-lfs")
    assert "so the build gets their pointers: deep/copy.bin, model.bin" in caplog.text


def test_git_lfs_sends_no_login_to_another_server(
    app: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = _server(MODEL)
    with lfs_server(other) as elsewhere, served_over_http(tmp_path / "root", _robot, lfs=_server(MODEL)) as address:
        app.commit({".lfsconfig": f"[lfs]\n\turl = {elsewhere}/lfs\n"})
        app.git("push", "--quiet", "--no-verify", str(tmp_path / "root/app.git"), "main")
        tree = _check_out(tmp_path, f"{address}/app.git")
    assert other.requests
    assert other.logins == []
    assert (tree / "model.bin").read_text().startswith("version https://git-lfs")
    assert "model.bin" in caplog.text
