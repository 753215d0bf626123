"""A publication asks its source for the order of two commits once, in whichever task; the next one asks again."""

import os
import shutil
from pathlib import Path

import pytest
from prefect import flow, task

from soci_pipeline.git.ancestry import CommitOrder
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.publish.source import Source
from tasks.source import ancestry_of
from tests.support.git_repositories import repository
from tests.support.programs import write_program

pytestmark = pytest.mark.usefixtures("prefect")


@task
def _look(ancestry: CommitOrder, older: str, newer: str) -> bool | None:
    with ancestry() as ask:
        return ask(older, newer) and ask(older, newer)


@flow
def _publication(source: Source, older: str, newer: str) -> list[bool | None]:
    ancestry = ancestry_of(source)
    return [_look(ancestry, older, newer), _look(ancestry, older, newer), _look(ancestry, newer, "c" * 40)]


def _source(path: Path, commit: str) -> Source:
    return Source(ResolvedSource(url=str(path), ref="refs/heads/main", commit=commit, commit_time=1))


def test_a_run_asks_for_the_order_of_two_commits_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = repository(tmp_path / "app")
    older, newer = app.git("rev-parse", "HEAD"), app.commit({"version": "2"})
    seen = tmp_path / "fetches"
    script = f'case " $* " in *" fetch "*) echo fetch >> {seen} ;; esac\nexec {shutil.which("git")} "$@"'
    write_program(tmp_path / "bin", "git", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    source = _source(app.path, newer)
    for run in (1, 2):
        assert _publication(source, older, newer) == [True, True, None]
        # One for the pair, and one for the commit that nobody knows.
        assert len(seen.read_text().splitlines()) == 2 * run


def test_a_source_that_is_gone_leaves_the_order_unknown(tmp_path: Path) -> None:
    with ancestry_of(_source(tmp_path / "nothing", "a" * 40))() as ask:
        assert ask("a" * 40, "b" * 40) is None
