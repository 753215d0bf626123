"""A folder of this machine as a source: what is its commit, and what its snapshot holds."""

from pathlib import Path

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.source import check_out
from soci_pipeline.publish.work_tree import read_work_tree, snapshot_of
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
