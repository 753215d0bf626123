"""The order of commits: one fetch of history for all questions of a publication, none for one that comes again."""

import os
import shutil
from pathlib import Path

import pytest

from soci_pipeline.errors import SourceError, TagConflict
from soci_pipeline.git.ancestry import Ancestry, Answers, CommitOrder
from soci_pipeline.oci.annotations import REVISION
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.publish.tags import check_tags_before_build, move_tags
from soci_pipeline.registry.client import RegistryClient
from tests.support.git_repositories import Repository, repository
from tests.support.images import AMD64, add_image
from tests.support.programs import write_program
from tests.support.published import REPOSITORY, upload

TAGS = ["latest", "main", "stable"]


@pytest.fixture
def app(tmp_path: Path) -> Repository:
    made = repository(tmp_path / "app")
    made.commit({"version": "2"})
    return made


@pytest.fixture
def fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each `git fetch`; the git on the PATH writes it."""
    seen = tmp_path / "fetches"
    seen.touch()
    script = f'case " $* " in *" fetch "*) echo fetch >> {seen} ;; esac\nexec {shutil.which("git")} "$@"'
    write_program(tmp_path / "bin", "git", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return seen


def _commits(app: Repository) -> tuple[str, str]:
    return app.git("rev-parse", "HEAD~1"), app.git("rev-parse", "HEAD")


def _index(client: RegistryClient, layout: Layout, revision: str) -> Descriptor:
    root = layout.add_document(
        ImageIndex(manifests=(add_image(layout, AMD64),), annotations={REVISION: revision, "note": revision})
    )
    upload(client, layout, root)
    return root


def test_a_publication_of_three_tags_fetches_history_once(
    app: Repository, client: RegistryClient, layout: Layout, fetches: Path
) -> None:
    old, new = _commits(app)
    before, after = _index(client, layout, old), _index(client, layout, new)
    move_tags(client, REPOSITORY, before, TAGS)
    answers: Answers = {}
    fetches.write_text("")
    with Ancestry(str(app.path), lambda: None, answers=answers) as ancestry:
        check_tags_before_build(client, REPOSITORY, TAGS, revision=new, ancestry=ancestry)
    assert fetches.read_text().splitlines() == ["fetch"]
    with Ancestry(str(app.path), lambda: None, answers=answers) as ancestry:
        move_tags(client, REPOSITORY, after, TAGS, ancestry=ancestry)
    assert fetches.read_text().splitlines() == ["fetch"]


def test_a_newer_image_that_came_meanwhile_is_a_new_question(
    app: Repository, client: RegistryClient, layout: Layout, fetches: Path
) -> None:
    old, new = _commits(app)
    answers: Answers = {}
    with Ancestry(str(app.path), lambda: None, answers=answers) as ancestry:
        check_tags_before_build(client, REPOSITORY, TAGS, revision=old, ancestry=ancestry)
    assert fetches.read_text() == ""
    move_tags(client, REPOSITORY, _index(client, layout, new), TAGS)
    index = _index(client, layout, old)
    with Ancestry(str(app.path), lambda: None, answers=answers) as ancestry, pytest.raises(TagConflict) as raised:
        move_tags(client, REPOSITORY, index, TAGS, ancestry=ancestry)
    assert raised.value.reason.count("which is newer than") == 3
    assert fetches.read_text().splitlines() == ["fetch"]


def test_questions_about_several_commits_share_one_history(app: Repository, tmp_path: Path, fetches: Path) -> None:
    old, new = _commits(app)
    with Ancestry(str(app.path), lambda: None) as ancestry:
        assert ancestry(old, new) is True
        assert ancestry(new, old) is False
        assert ancestry("c" * 40, new) is None
        assert ancestry("not a commit", new) is None
    assert fetches.read_text().splitlines() == ["fetch"]


def test_the_order_of_two_commits_is_asked_for_once_by_a_move(
    app: Repository, client: RegistryClient, layout: Layout
) -> None:
    old, new = _commits(app)
    move_tags(client, REPOSITORY, _index(client, layout, old), TAGS)
    asked: list[tuple[str, str]] = []

    def ancestry(older: str, newer: str) -> bool | None:
        asked.append((older, newer))
        return None

    move_tags(client, REPOSITORY, _index(client, layout, new), TAGS, ancestry=ancestry)
    assert asked == [(new, old)]


def test_an_error_is_not_remembered(app: Repository, tmp_path: Path) -> None:
    old, new = _commits(app)
    answers: Answers = {}
    away = app.path.rename(tmp_path / "away")
    with Ancestry(str(app.path), lambda: None, answers=answers) as ancestry:
        with pytest.raises(SourceError):
            ancestry(old, new)
        away.rename(app.path)
        assert ancestry(old, new) is True


def test_the_order_of_commits_is_looked_up_once_however_often_the_history_is_opened(
    app: Repository, fetches: Path
) -> None:
    old, new = _commits(app)
    order = CommitOrder(str(app.path), lambda: None)
    for _ in range(2):
        with order() as is_ancestor:
            assert is_ancestor(old, new) is True
    assert fetches.read_text().splitlines() == ["fetch"]


def test_the_order_of_commits_reads_credentials_only_for_a_fetch(app: Repository) -> None:
    old, new = _commits(app)
    reads: list[str] = []

    def credentials() -> None:
        reads.append("read")

    order = CommitOrder(str(app.path), credentials)
    assert reads == []
    for _ in range(2):
        with order() as is_ancestor:
            assert is_ancestor(old, new) is True
    assert reads == ["read"]


def test_the_order_of_commits_of_a_repository_that_is_gone_is_unknown(app: Repository, tmp_path: Path) -> None:
    old, new = _commits(app)
    order = CommitOrder(str(app.path), lambda: None)
    away = app.path.rename(tmp_path / "away")
    with order() as is_ancestor:
        assert is_ancestor(old, new) is None
    away.rename(app.path)
    with order() as is_ancestor:
        assert is_ancestor(old, new) is True
