"""Work trees served over loopback by git's own daemon."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.git_server import GitServer, git_server
from soci_pipeline.errors import InvalidInput, SourceError
from soci_pipeline.git.source import check_out, resolve


def _git(*arguments: str, cwd: Path) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    _git("init", "--quiet", cwd=folder)
    (folder / "file").write_text("committed")
    (folder / ".gitignore").write_text("ignored\n")
    _git("add", ".", cwd=folder)
    _git("commit", "--quiet", "--message", "one", cwd=folder)
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with git_server(tmp_path / "served") as running:
        yield running


def test_a_worker_gets_the_committed_state_of_a_work_tree(server: GitServer, tree: Path, tmp_path: Path) -> None:
    served = server.serve(tree, "source")
    found = resolve(served.url)
    assert found.commit == served.commit == _git("rev-parse", "HEAD", cwd=tree)
    assert (check_out(found, tmp_path / "out") / "file").read_text() == "committed"


def test_uncommitted_changes_are_named_and_left_out(
    server: GitServer, tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tree / "file").write_text("changed")
    (tree / "new").write_text("new")
    served = server.serve(tree, "source")
    assert "uncommitted changes are not published: file, new" in caplog.text
    assert not (check_out(resolve(served.url), tmp_path / "out") / "new").exists()


def test_changes_outside_of_what_is_used_are_not_worth_a_word(
    server: GitServer, tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tree / "used").mkdir()
    (tree / "elsewhere").write_text("new")
    server.serve(tree, "source", used="used")
    assert "uncommitted" not in caplog.text


def test_branches_and_tags_of_the_work_tree_can_be_asked_for(server: GitServer, tree: Path) -> None:
    first = _git("rev-parse", "HEAD", cwd=tree)
    _git("tag", "v1.0", cwd=tree)
    _git("checkout", "--quiet", "-b", "side", cwd=tree)
    _git("commit", "--quiet", "--allow-empty", "--message", "two", cwd=tree)
    served = server.serve(tree, "source")
    assert resolve(served.url, "v1.0").commit == first
    assert resolve(served.url, "side").commit == served.commit != first


def test_a_detached_head_and_a_shallow_clone_are_served(server: GitServer, tree: Path, tmp_path: Path) -> None:
    _git("commit", "--quiet", "--allow-empty", "--message", "two", cwd=tree)
    _git("clone", "--quiet", "--depth=1", f"file://{tree}", str(tmp_path / "shallow"), cwd=tmp_path)
    _git("checkout", "--quiet", "--detach", cwd=tmp_path / "shallow")
    served = server.serve(tmp_path / "shallow", "source")
    assert resolve(served.url).commit == _git("rev-parse", "HEAD", cwd=tree)


def test_a_snapshot_has_uncommitted_files_but_not_ignored_ones(server: GitServer, tree: Path, tmp_path: Path) -> None:
    (tree / "new").write_text("new")
    (tree / "ignored").write_text("x")
    served = server.serve_snapshot(tree, "flows")
    files = sorted(path.name for path in check_out(resolve(served.url), tmp_path / "out").iterdir())
    assert files == [".gitignore", "file", "new"]
    assert _git("status", "--porcelain", cwd=tree) == "?? new"


def test_a_snapshot_of_the_same_files_is_the_same_commit(server: GitServer, tmp_path: Path) -> None:
    commits = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
        commits.add(server.serve_snapshot(tmp_path / name, name).commit)
    assert len(commits) == 1


def test_a_snapshot_is_packed_once_so_that_no_clone_packs_it_again(server: GitServer, tree: Path) -> None:
    server.serve_snapshot(tree, "flows")
    counted = _git("-C", str(server.folder / "repositories" / "flows.git"), "count-objects", "-v", cwd=tree)
    assert {"count: 0", "packs: 1"} <= set(counted.splitlines())


def test_a_folder_without_a_commit_is_refused(server: GitServer, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(SourceError, match="not a git work tree with a commit"):
        server.serve(tmp_path / "plain", "source")


def test_a_name_that_leaves_the_folder_is_refused(server: GitServer, tree: Path) -> None:
    with pytest.raises(InvalidInput, match="not a valid name"):
        server.serve(tree, "../elsewhere")


def test_nothing_listens_after_the_block(tmp_path: Path) -> None:
    with git_server(tmp_path) as running:
        port = running.port
    from local_stack.ports import listens

    assert not listens(port)


def test_a_snapshot_is_the_same_commit_whatever_the_users_configuration_says(
    server: GitServer, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "dos").write_bytes(b"a\r\nb\r\n")
    before = server.serve_snapshot(tree, "source").commit
    (tmp_path / ".gitconfig").write_text(
        "[core]\n\tautocrlf = input\n[init]\n\tdefaultObjectFormat = sha256\n[safe]\n\tbareRepository = explicit\n"
        "[commit]\n\tgpgSign = true\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    with git_server(tmp_path / "again") as other:
        served = other.serve_snapshot(tree, "source")
        assert served.commit == before
        assert (check_out(resolve(served.url), tmp_path / "out") / "dos").read_bytes() == b"a\r\nb\r\n"
        assert other.serve(tree, "work-tree").commit == _git("rev-parse", "HEAD", cwd=tree)


def test_a_work_tree_with_sha_256_is_served(server: GitServer, tmp_path: Path) -> None:
    folder = tmp_path / "sha256"
    folder.mkdir()
    _git("init", "--quiet", "--object-format=sha256", cwd=folder)
    (folder / "file").write_text("committed")
    _git("add", ".", cwd=folder)
    _git("commit", "--quiet", "--message", "one", cwd=folder)
    found = resolve(server.serve(folder, "source").url)
    assert len(found.commit) == 64
    assert (check_out(found, tmp_path / "out") / "file").read_text() == "committed"
