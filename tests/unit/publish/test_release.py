"""Releases: where a worker finds the flows, and that a branch runs the version of its parent or none."""

from pathlib import Path

import pytest

from soci_pipeline.errors import InvalidInput, SociPipelineError, SourceError, StackError
from soci_pipeline.project import HOME
from soci_pipeline.publish import release
from tests.support.git_repositories import Repository, repository, served

FILES = {"prefect.yaml": "name: x\n", "flows/a.py": "A = 1\n", "tasks/b.py": "B = 1\n"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(tmp_path / "work"))
    monkeypatch.chdir(tmp_path)
    return repository(tmp_path / "project", FILES)


def test_the_folder_is_the_one_that_the_environment_names(project: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME, str(project.path))
    assert release.enter() == {"directory": str(project.path)}


def test_the_current_folder_is_taken_where_it_is_a_checkout(
    project: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.path)
    assert release.enter() == {"directory": str(project.path)}


def test_a_folder_without_flows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME, str(tmp_path))
    with pytest.raises(StackError, match="not a clone of the project"):
        release.enter()


def test_the_pinned_commit_is_fetched_once_and_kept(project: Repository, tmp_path: Path) -> None:
    pinned = project.git("rev-parse", "HEAD")
    project.commit({"flows/a.py": "A = 2\n"})
    with served(tmp_path / "git", project) as url:
        folder = Path(release.enter(url, pinned)["directory"])
    assert (folder / "flows/a.py").read_text() == "A = 1\n"
    # The server is gone: what is there is not asked for again.
    assert release.enter(url, pinned) == {"directory": str(folder)}
    assert sorted(path.name for path in (tmp_path / "work/releases").iterdir()) == [pinned]


def test_the_environment_of_the_run_counts_for_more_than_the_deployment(
    project: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = project.git("rev-parse", "HEAD")
    new = project.commit({"flows/a.py": "A = 2\n"})
    monkeypatch.setenv(release.REPOSITORY, str(project.path))
    monkeypatch.setenv(release.COMMIT, new)
    folder = Path(release.enter("/nowhere", old)["directory"])
    assert (folder / "flows/a.py").read_text() == "A = 2\n"


def test_a_repository_without_a_commit_is_refused(project: Repository) -> None:
    with pytest.raises(InvalidInput, match="SOCI_PIPELINE_COMMIT is not"):
        release.enter(str(project.path), None)


@pytest.mark.parametrize("commit", ["../../etc", "--x", "nothing-like-it"])
def test_a_commit_that_is_none_is_refused(project: Repository, commit: str) -> None:
    with pytest.raises((InvalidInput, SourceError)):
        release.enter(str(project.path), commit)


def test_flows_of_another_version_than_the_parents_do_not_run(
    project: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME, str(project.path))
    monkeypatch.setenv(release.EXPECTED_RELEASE, release.identity(project.path))
    assert release.enter()
    project.commit({"tasks/b.py": "B = 2\n"})
    with pytest.raises(SociPipelineError, match="have the version"):
        release.enter()


def test_the_identity_depends_on_names_and_contents_of_the_flows_alone(project: Repository) -> None:
    first = release.identity(project.path)
    (project.path / "README.md").write_text("x")
    assert release.identity(project.path) == first
    (project.path / "flows/a.py").rename(project.path / "flows/c.py")
    assert release.identity(project.path) != first
