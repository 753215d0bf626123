"""Files in Git LFS: fetched with the login of the source and for its server alone, or named in a warning."""

import os
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from soci_pipeline.errors import SourceError
from soci_pipeline.git import source
from soci_pipeline.git.sign_in import GitCredentials
from tests.support.git_http import redirecting, served_over_http
from tests.support.git_repositories import Repository, repository, served
from tests.support.lfs_server import LfsServer, install_git_lfs, lfs_server, pointer
from tests.support.programs import write_program

LOGIN = GitCredentials(username="robot", password=SecretStr("hunter2"))
MODEL, WEIGHTS = b"m" * 3000, b"w" * 70
POINTERS = "the source has Git LFS files that were not fetched, so the build gets their pointers"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home where git-lfs has been set up as it sets itself up; no git-lfs of the machine is found."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / ".gitconfig").write_text(
        '[filter "lfs"]\n\tclean = git-lfs clean -- %f\n\tsmudge = git-lfs smudge -- %f\n'
        "\tprocess = git-lfs filter-process\n\trequired = true\n"
    )
    monkeypatch.setenv("HOME", str(folder))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    write_program(tmp_path / "bin", "git-lfs", "exit 127")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def git_lfs(tmp_path: Path) -> None:
    """A git-lfs on the PATH."""
    install_git_lfs(tmp_path / "bin")


@pytest.fixture
def app(tmp_path: Path, home: Path) -> Repository:
    """A repository with four pointers, one of them to an executable; ``root/app.git`` is a bare copy of it."""
    made = repository(tmp_path / "app", {"Dockerfile": "FROM scratch\n"})
    for name, value in (("clean", ""), ("process", ""), ("required", "false")):
        made.git("config", f"filter.lfs.{name}", value)
    (made.path / "run.bin").write_text(pointer(WEIGHTS))
    (made.path / "run.bin").chmod(0o755)
    files = {"model.bin": pointer(MODEL), "deep/copy.bin": pointer(MODEL), "deep/weights.bin": pointer(WEIGHTS)}
    made.commit({".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", **files})
    made.git("clone", "--quiet", "--bare", ".", str(tmp_path / "root/app.git"))
    return made


def _server(**changes: object) -> LfsServer:
    server = LfsServer([MODEL, WEIGHTS], lambda user, password: (user, password) == ("robot", "hunter2"))
    for name, value in changes.items():
        setattr(server, name, value)
    return server


def _check_out(tmp_path: Path, url: str, credentials: GitCredentials | None = LOGIN) -> Path:
    return source.check_out(source.resolve(url, credentials=credentials), tmp_path / "tree", credentials=credentials)


def _robot(path: str, user: str, password: str) -> bool:
    return (user, password) == ("robot", "hunter2")


@pytest.mark.usefixtures("app", "git_lfs")
def test_the_contents_are_fetched_with_the_login_of_the_source(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = _server()
    with served_over_http(tmp_path / "root", _robot, lfs=server) as address:
        tree = _check_out(tmp_path, f"{address}/app.git")
    assert (tree / "model.bin").read_bytes() == (tree / "deep/copy.bin").read_bytes() == MODEL
    assert (tree / "deep/weights.bin").read_bytes() == (tree / "run.bin").read_bytes() == WEIGHTS
    assert stat.S_IMODE((tree / "run.bin").stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / "model.bin").stat().st_mode) == 0o644
    assert len({path.lstat().st_mtime for path in tree.rglob("*")}) == 1
    assert set(server.logins) == {"robot:hunter2"}
    assert caplog.text == ""


@pytest.mark.usefixtures("app")
def test_without_git_lfs_the_pointers_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = _server()
    with served_over_http(tmp_path / "root", _robot, lfs=server) as address:
        tree = _check_out(tmp_path, f"{address}/app.git")
    assert (tree / "model.bin").read_text() == pointer(MODEL)
    assert f"{POINTERS}: deep/copy.bin, deep/weights.bin, model.bin, run.bin" in caplog.text
    assert "git-lfs is not installed on this worker" in caplog.text
    assert server.requests == []


@pytest.mark.usefixtures("git_lfs")
def test_many_pointers_are_named_in_part(app: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app.commit({f"{number:02}.bin": pointer(b"%d" % number) for number in range(30)})
    with served(tmp_path / "git", app) as url:
        _check_out(tmp_path, url, None)
    assert "08.bin, 09.bin and 24 more" in caplog.text


@pytest.mark.usefixtures("app", "git_lfs")
@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"contents": [MODEL]}, "deep/weights.bin, run.bin"),
        ({"status": 404}, "model.bin"),
        ({"status": 403}, "model.bin"),
    ],
)
def test_what_the_server_does_not_give_is_named_and_the_rest_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, object], names: str
) -> None:
    with served_over_http(tmp_path / "root", _robot, lfs=_server(**changes)) as address:
        tree = _check_out(tmp_path, f"{address}/app.git")
    assert POINTERS in caplog.text
    assert names in caplog.text
    assert (tree / "model.bin").read_bytes() == (MODEL if "contents" in changes else pointer(MODEL).encode())


@pytest.mark.usefixtures("app", "git_lfs")
def test_a_server_that_cannot_just_now_is_a_temporary_error(tmp_path: Path) -> None:
    with (
        served_over_http(tmp_path / "root", _robot, lfs=_server(status=503)) as address,
        pytest.raises(SourceError, match="cannot fetch the Git LFS files") as raised,
    ):
        _check_out(tmp_path, f"{address}/app.git")
    assert raised.value.temporary
    assert not list(tmp_path.glob("tree/*"))


@pytest.mark.usefixtures("git_lfs")
def test_another_server_that_the_commit_names_receives_no_login(
    app: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = _server()
    with lfs_server(other) as elsewhere:
        app.commit({".lfsconfig": f"[lfs]\n\turl = {elsewhere}/lfs\n"})
        app.git("push", "--quiet", str(tmp_path / "root/app.git"), "main")
        with served_over_http(tmp_path / "root", _robot, lfs=_server()) as address:
            tree = _check_out(tmp_path, f"{address}/app.git")
    assert other.requests
    assert other.logins == []
    assert (tree / "model.bin").read_text() == pointer(MODEL)
    assert POINTERS in caplog.text


@pytest.mark.usefixtures("app", "git_lfs")
def test_another_server_that_the_server_of_the_source_redirects_to_receives_no_login(tmp_path: Path) -> None:
    other = _server()
    with lfs_server(other) as elsewhere, redirecting(elsewhere, status=307) as away:
        server = _server(status=200)
        with served_over_http(tmp_path / "root", _robot, lfs=server) as address:
            server.url = away
            tree = _check_out(tmp_path, f"{address}/app.git")
    assert (tree / "model.bin").read_bytes() == MODEL
    assert other.logins == []


@pytest.mark.usefixtures("git_lfs")
@pytest.mark.parametrize(
    "named",
    ["ssh://git@evil.example.com/lfs", "git@evil.example.com:lfs", "file:///srv/other", "ext::sh -c id", "/srv"],
)
def test_a_server_that_the_commit_names_over_another_transport_is_not_contacted(
    app: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture, named: str
) -> None:
    app.commit({".lfsconfig": f"[lfs]\n\turl = {named}\n"})
    app.git("push", "--quiet", str(tmp_path / "root/app.git"), "main")
    server = _server()
    with served_over_http(tmp_path / "root", _robot, lfs=server) as address:
        _check_out(tmp_path, f"{address}/app.git")
    assert "lfs.url of .lfsconfig" in caplog.text
    assert server.requests == []


@pytest.mark.usefixtures("git_lfs")
def test_a_file_that_only_looks_like_a_pointer_is_left_alone(
    app: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = pointer(MODEL)
    app.git("rm", "--quiet", "model.bin", "run.bin", "deep/copy.bin", "deep/weights.bin")
    files = {"docs.md": f"An example:\n\n{text}", "long": text + "x" * 2000, "half": text[:60], "more": f"{text}more\n"}
    app.commit(files)
    tree = source.check_out(source.resolve(str(app.path)), tmp_path / "tree")
    assert {name: (tree / name).read_text() for name in files} == files
    assert caplog.text == ""
