"""A folder of this machine as a source: what is its commit, and what its snapshot holds."""

import os
import re
import socket
from pathlib import Path

import pytest

from soci_pipeline.errors import InvalidInput, SourceError
from soci_pipeline.git.source import check_out, resolve
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.publish.work_tree import check_folder, read_work_tree, snapshot_of
from tests.support.git_repositories import MOMENT, Repository, repository


@pytest.fixture
def source(tmp_path: Path) -> Repository:
    files = {
        "app/Dockerfile": "FROM scratch\n",
        "app/kept.log": "tracked",
        "other": "x",
        ".gitignore": "*.log\nbuild/\n",
    }
    made = repository(tmp_path / "source", files)
    made.git("add", "--force", "app/kept.log")
    made.git("commit", "--quiet", "--amend", "--no-edit")
    return made


def _snapshot(folder: Path, place: Path) -> tuple[dict[str, str], int]:
    """The files of a snapshot of a folder, and its time."""
    found = snapshot_of(read_work_tree(folder), place / "snapshot.git", files=())
    tree = check_out(found, place / "files")
    names = {str(path.relative_to(tree)): path.read_text() for path in tree.rglob("*") if path.is_file()}
    return names, found.commit_time


def test_a_snapshot_has_the_files_as_git_add_takes_them(source: Repository, tmp_path: Path) -> None:
    app = source.path / "app"
    (app / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    (app / "new.txt").write_text("new")
    (app / "debug.log").write_text("ignored")
    (app / "build").mkdir()
    (app / "build" / "out").write_text("ignored")
    files, moment = _snapshot(app, tmp_path)
    assert files == {"Dockerfile": "FROM scratch\nLABEL a=b\n", "kept.log": "tracked", "new.txt": "new"}
    assert moment == MOMENT


def test_a_snapshot_leaves_the_repository_as_it_is(source: Repository, tmp_path: Path) -> None:
    (source.path / "app" / "new.txt").write_text("new")
    before = source.git("status", "--porcelain"), source.git("count-objects"), source.git("for-each-ref")
    _snapshot(source.path / "app", tmp_path)
    assert (source.git("status", "--porcelain"), source.git("count-objects"), source.git("for-each-ref")) == before


def test_a_deleted_file_is_not_in_the_snapshot(source: Repository, tmp_path: Path) -> None:
    (source.path / "app" / "kept.log").unlink()
    tree = read_work_tree(source.path / "app")
    assert tree.changes == ("app/kept.log",)
    assert set(_snapshot(source.path / "app", tmp_path)[0]) == {"Dockerfile"}


def test_a_renamed_file_counts_once(source: Repository) -> None:
    source.git("mv", "other", "renamed")
    tree = read_work_tree(source.path)
    assert tree.changes == ("renamed",)
    assert not tree.is_clean


def test_a_repository_without_a_commit_has_none(tmp_path: Path) -> None:
    fresh = Repository(tmp_path / "fresh")
    fresh.path.mkdir()
    fresh.git("init", "--quiet")
    (fresh.path / "file").write_text("x")
    tree = read_work_tree(fresh.path)
    assert "has no commit yet" in str(tree.why_uncommitted)
    assert _snapshot(fresh.path, tmp_path)[0] == {"file": "x"}


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInput, match="is a file, not a folder"):
        read_work_tree(tmp_path / "file")


def test_no_command_of_the_repositorys_own_configuration_runs(source: Repository, tmp_path: Path) -> None:
    marks = [tmp_path / name for name in ("filter", "process", "inner")]
    inner = repository(source.path / "inner", {"file": "a\n"})
    source.git("add", "inner")
    source.git("commit", "--quiet", "--message", "with a submodule")
    for made, name, mark in ((source, "x", marks[0]), (source, "a=b c", marks[1]), (inner, "y", marks[2])):
        made.git("config", "core.fsmonitor", f"touch {mark}; false")
        # git names a filter by what stands in its configuration, an equals sign among it.
        with (made.path / ".git" / "config").open("a") as configuration:
            configuration.write(f'[filter "{name}"]\n\tclean = "touch {mark}; cat"\n')
    (source.path / ".gitattributes").write_text("other filter=x\n")
    (inner.path / ".gitattributes").write_text("* filter=y\n")
    for file in (source.path / "other", inner.path / "file"):
        # The same size, another time: git reads what is in it to know whether it was changed.
        os.utime(file, (1, 1))
    source.git("status", "--porcelain")
    # Plain git runs it.
    assert marks[0].exists()
    for mark in marks:
        mark.unlink(missing_ok=True)
    os.utime(source.path / "other", (2, 2))
    tree = read_work_tree(source.path)
    snapshot_of(tree, tmp_path / "snapshot.git", files=())
    resolve(str(source.path))
    assert not any(mark.exists() for mark in marks)


def test_looking_at_a_folder_does_not_write_the_index_of_its_repository(source: Repository) -> None:
    index = source.path / ".git" / "index"
    os.utime(source.path / "other", (1, 1))
    before = index.read_bytes()
    assert read_work_tree(source.path).is_clean
    assert index.read_bytes() == before


def test_a_repository_whose_files_are_elsewhere_is_rejected(source: Repository, tmp_path: Path) -> None:
    for place in (tmp_path / "elsewhere", tmp_path):
        place.mkdir(exist_ok=True)
        source.git("config", "core.worktree", str(place))
        with pytest.raises(InvalidInput, match=r"core\.worktree"):
            read_work_tree(source.path)


def test_the_time_of_old_and_of_far_files_is_kept(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for moment in (0, 1, 99_999_999, 1 << 33):
        (plain / "file").write_text("x")
        os.utime(plain / "file", (moment, moment))
        place = tmp_path / str(moment)
        place.mkdir()
        assert _snapshot(plain, place)[1] == moment


def test_a_commit_without_a_valid_date_is_rejected(source: Repository, tmp_path: Path) -> None:
    commit = source.git("cat-file", "commit", "HEAD")
    (source.path / "new.txt").write_text("new")
    for date in ("never +0000", "99999999999999 +0000"):
        file = tmp_path / "commit"
        file.write_text(re.sub(r"(?m)^committer .*$", f"committer X <x@example.com> {date}", commit) + "\n")
        made = source.git("hash-object", "-t", "commit", "-w", "--literally", str(file))
        source.git("update-ref", "refs/heads/main", made)
        with pytest.raises(SourceError, match="has no valid date"):
            resolve(str(source.path))
        with pytest.raises(SourceError, match="has no valid date"):
            snapshot_of(read_work_tree(source.path), tmp_path / f"{made}.git", files=())


def test_what_git_ignores_by_other_files_than_gitignore_is_not_in_the_snapshot(
    source: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home" / "git").mkdir(parents=True)
    (tmp_path / "mine").write_text("secrets.env\n")
    (tmp_path / "home" / "git" / "config").write_text(f"[core]\n\texcludesFile = {tmp_path}/mine\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    (source.path / ".git" / "info").mkdir(exist_ok=True)
    (source.path / ".git" / "info" / "exclude").write_text("local.env\n")
    plain = tmp_path / "plain"
    plain.mkdir()
    for folder in (source.path / "app", plain):
        for name in ("secrets.env", "local.env", "new.txt"):
            (folder / name).write_text("x")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert set(_snapshot(source.path / "app", tmp_path / "one")[0]) == {"Dockerfile", "kept.log", "new.txt"}
    assert set(_snapshot(plain, tmp_path / "two")[0]) == {"local.env", "new.txt"}


def test_untracked_files_count_whatever_the_user_has_git_show(source: Repository) -> None:
    source.git("config", "status.showUntrackedFiles", "no")
    (source.path / "new.txt").write_text("new")
    assert read_work_tree(source.path).changes == ("new.txt",)


def test_names_that_a_terminal_takes_for_commands_are_shown_quoted(source: Repository) -> None:
    (source.path / "\x1b[2Jone\ntwo").write_text("x")
    assert str(read_work_tree(source.path).why_uncommitted).endswith(r"uncommitted changes: '\x1b[2Jone\ntwo'")


def test_repositories_in_the_folder_are_named_since_their_files_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repository(tmp_path / "plain" / "inner")
    (tmp_path / "plain" / "file").write_text("x")
    assert set(_snapshot(tmp_path / "plain", tmp_path)[0]) == {"file"}
    assert "separate git repositories: 'inner'" in caplog.text


def _make_special(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    if kind == "a FIFO":
        os.mkfifo(path)
    else:
        # Through a descriptor of the folder: the path of a socket has at most 107 bytes.
        folder = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


@pytest.mark.parametrize("kind", ["a FIFO", "a socket"])
@pytest.mark.parametrize(
    "name",
    [".gitignore", "app/.gitattributes", "app/deep/.gitignore", "app/.dockerignore", "app/Dockerfile.dockerignore"],
)
@pytest.mark.timeout(20)
def test_a_special_file_that_git_or_a_builder_would_open_is_rejected(name: str, kind: str, source: Repository) -> None:
    path = source.path / name
    _make_special(path, kind)
    with pytest.raises(InvalidInput, match=re.escape(f"{path} is not a regular file, but {kind}")):
        read_work_tree(source.path / "app")


@pytest.mark.parametrize("name", ["HEAD", "config", "info/exclude", "refs/heads/other", "objects/info/alternates"])
@pytest.mark.timeout(20)
def test_a_fifo_in_the_repository_is_rejected(name: str, source: Repository) -> None:
    _make_special(source.path / ".git" / name, "a FIFO")
    with pytest.raises(InvalidInput, match="is not a regular file, but a FIFO"):
        read_work_tree(source.path / "app")
    with pytest.raises(InvalidInput, match="is not a regular file, but a FIFO"):
        resolve(f"file://{source.path}")


@pytest.mark.timeout(20)
def test_special_files_that_nothing_opens_are_left_out(source: Repository, tmp_path: Path) -> None:
    _make_special(source.path / ".git" / "fsmonitor--daemon.ipc", "a socket")
    _make_special(source.path / "app" / "pipe", "a FIFO")
    (source.path / "app" / "new.txt").write_text("new")
    assert "pipe" not in _snapshot(source.path / "app", tmp_path)[0]


@pytest.mark.timeout(20)
def test_a_tracked_file_that_became_a_fifo_is_named(source: Repository, tmp_path: Path) -> None:
    _make_special(source.path / "app" / "kept.log", "a FIFO")
    with pytest.raises(SourceError, match=r"(?s)a tracked file is no longer a regular file.*kept\.log"):
        _snapshot(source.path / "app", tmp_path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dockerfile": "pipe"}, "pipe is a FIFO, not a regular file"),
        ({"dockerfile": "zero"}, "zero is a character device, not a regular file"),
        ({"dockerfile": "folder"}, "folder is a folder, not a regular file"),
        ({"context": "Dockerfile"}, "Dockerfile is a file, not a folder"),
        ({"dockerfile": "none"}, "has no none"),
    ],
)
@pytest.mark.timeout(20)
def test_a_dockerfile_that_is_not_a_file_is_rejected_before_the_build(
    options: dict[str, str], reason: str, source: Repository
) -> None:
    app = source.path / "app"
    os.mkfifo(app / "pipe")
    (app / "zero").symlink_to("/dev/zero")
    (app / "folder").mkdir()
    request = PublishRequest.check({"source": str(app), "image": "127.0.0.1:9/a", **options})
    with pytest.raises(InvalidInput, match=reason):
        check_folder(read_work_tree(app), request)


@pytest.mark.parametrize("folder", ["bare.git", "bare.git/refs", "source/.git"])
def test_a_repository_without_a_work_tree_is_rejected_with_its_url(
    folder: str, source: Repository, tmp_path: Path
) -> None:
    source.git("clone", "--quiet", "--bare", str(source.path), str(tmp_path / "bare.git"))
    with pytest.raises(InvalidInput, match="a bare git repository, which has no files") as caught:
        read_work_tree(tmp_path / folder)
    repository_of = tmp_path / folder.removesuffix("/refs")
    assert f"`file://{repository_of}`" in str(caught.value.advice)
