"""Events as forges really send them: lists that are cut off, names of every script, and deliveries that come again."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.git import source as git_source
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.webhook.events import PushEvent
from soci_pipeline.webhook.metrics import Metrics
from soci_pipeline.webhook.outbox import Outbox
from soci_pipeline.webhook.receiver import Answer, Receiver
from soci_pipeline.webhook.sources import github, gitlab
from tests.support import webhook as support
from tests.support.git_repositories import repository


def _files(count: int, folder: str = "docs") -> list[str]:
    return [f"{folder}/{number}.md" for number in range(count)]


def _commits(count: int) -> list[dict[str, list[str]]]:
    return [{"added": [], "removed": [], "modified": [f"docs/{number}.md"]} for number in range(count)]


def _github(**changes: Any) -> frozenset[str] | None:
    event = github.parse({"x-github-event": "push"}, json.dumps(support.github_push(**changes)).encode())
    assert isinstance(event, PushEvent)
    return event.paths


def _gitlab(**changes: Any) -> frozenset[str] | None:
    event = gitlab.parse({"x-gitlab-event": "Push Hook"}, json.dumps(support.gitlab_push(**changes)).encode())
    assert isinstance(event, PushEvent)
    return event.paths


@pytest.mark.parametrize(
    "commit",
    [
        {"added": _files(3000), "removed": [], "modified": []},
        {"added": _files(1000), "removed": _files(1000, "old"), "modified": _files(1000, "src")},
        {"added": _files(3001)},
    ],
)
def test_a_commit_with_as_many_files_as_github_lists_may_have_changed_more(commit: dict[str, list[str]]) -> None:
    assert _github(commits=[*_commits(1), commit, *_commits(1)]) is None


def test_a_commit_with_fewer_files_is_whole() -> None:
    assert _github(commits=[{"added": _files(2999)}]) == frozenset(_files(2999))
    assert _github(commits=[{"added": _files(2000)}, {"added": _files(2000, "src")}]) is not None


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"commits": _commits(19)}, True),
        ({"commits": _commits(20)}, False),
        ({"commits": _commits(21)}, True),
        ({"commits": _commits(2047)}, True),
        ({"commits": _commits(2048)}, False),
        ({"commits": _commits(5), "total_commits": 5}, True),
        ({"commits": _commits(5), "total_commits": 6}, False),
        ({"commits": [], "total_commits": 0}, False),
        ({"commits": None}, False),
        ({"before": support.ZERO}, False),
        ({"before": "0" * 64}, False),
        ({"forced": True}, False),
        ({"created": True}, False),
    ],
)
def test_what_a_push_changed_is_known_where_the_list_of_its_commits_is_whole(
    changes: dict[str, Any], known: bool
) -> None:
    assert (_github(**changes) is not None) == known


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"commits": _commits(20), "total_commits_count": 20}, True),
        ({"commits": _commits(20), "total_commits_count": 21}, False),
        ({"commits": _commits(19), "total_commits_count": None}, True),
        ({"commits": _commits(20), "total_commits_count": None}, False),
        ({"commits": _commits(20), "total_commits_count": 0}, False),
        ({"commits": None, "total_commits_count": 0}, False),
    ],
)
def test_gitlab_lists_no_more_than_twenty_commits(changes: dict[str, Any], known: bool) -> None:
    assert (_gitlab(**changes) is not None) == known


def test_a_push_of_gitea_or_forgejo_is_one_of_github(tmp_path: Path) -> None:
    push = support.github_push(
        commits=[{"id": support.COMMIT, "added": None, "removed": None, "modified": ["app/main.py"]}], total_commits=1
    )
    for absent in ("created", "deleted", "forced"):
        del push[absent]
    body = json.dumps(push).encode()
    with _receiver(tmp_path, paths=["app/**"]) as (receiver, _):
        headers = support.github_headers(body) | {"x-gitea-event": "push", "x-gogs-event": "push"}
        assert receiver.receive("github", headers, body).body["status"] == "stored"
    paths = []
    for forced_pushes in (False, True):
        event = github.parse(headers, body, forced_pushes=forced_pushes)
        assert isinstance(event, PushEvent)
        paths.append(event.paths)
    assert paths == [frozenset({"app/main.py"}), None]


def test_where_branches_of_gitlab_may_be_forced_what_changed_is_unknown(tmp_path: Path) -> None:
    keys = support.document(tmp_path)["sources"][0]["secrets"]
    for forced, status in ((False, "ignored"), (True, "stored")):
        folder = tmp_path / str(forced)
        folder.mkdir()
        sources = [{"kind": "gitlab", "name": "gitlab", "tokens": keys, "forced_pushes": forced}]
        rules = [support.rule(sources=["gitlab"], repositories=["**"], paths=["src/**"])]
        configuration = support.configuration(folder, sources=sources, rules=rules)
        body = json.dumps(support.gitlab_push()).encode()
        headers = {"content-type": "application/json", "x-gitlab-event": "Push Hook"}
        with Outbox(configuration.outbox) as outbox:
            receiver = Receiver(configuration, outbox, Metrics())
            answer = receiver.receive("gitlab", headers | {"x-gitlab-token": support.SECRET.decode()}, body)
            assert answer.body["status"] == status


@contextmanager
def _receiver(folder: Path, **rule: Any) -> Iterator[tuple[Receiver, Outbox]]:
    configuration = support.configuration(folder, rules=[support.rule(**rule)])
    with Outbox(configuration.outbox) as outbox:
        yield Receiver(configuration, outbox, Metrics()), outbox


def _send(receiver: Receiver, push: dict[str, Any]) -> Answer:
    body = json.dumps(push).encode()
    return receiver.receive("github", support.github_headers(body), body)


BRANCHES = [
    "feature/größe",
    "функция",
    "機能/追加",
    "הוספה",
    "fix-🚀",
    "👩‍💻/wip",
    "100%",
    "%2e%2e/x",
    "#123-fix",
    "@scope/pkg@1.2",
    "c++",
    "a=b,c",
    "+plus",
    "_x",
    "renovate/@types-node",
    "dependabot/npm_and_yarn/lodash-4.17.21",
    "a" * 240,
    "/".join(["long" * 50] * 4),
    "ü" * 100,
]


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_branch_of_whatever_script_is_published_under_a_tag_of_its_own(tmp_path: Path, branch: str) -> None:
    ref = f"refs/heads/{branch}"
    assert subprocess.run(["git", "check-ref-format", ref], check=False).returncode == 0
    with _receiver(tmp_path, branches=["**"]) as (receiver, outbox):
        answer = _send(receiver, support.github_push(ref=ref))
        assert (answer.status, answer.body["status"]) == (202, "stored"), answer.body
        run = outbox.run(answer.body["runs"][0]["key"])
    assert run is not None
    PublishRequest.check(run.parameters | {"ref": branch})


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_branch_of_whatever_script_that_no_rule_names_is_ignored(tmp_path: Path, branch: str) -> None:
    with _receiver(tmp_path) as (receiver, _):
        answer = _send(receiver, support.github_push(ref=f"refs/heads/{branch}"))
    assert (answer.status, answer.body["status"]) == (202, "ignored")


def test_a_branch_of_another_script_is_resolved_and_fetched(tmp_path: Path) -> None:
    app = repository(tmp_path / "app")
    for branch in ("機能/fix-🚀", "100%", "#1+2"):
        app.git("checkout", "--quiet", "-b", branch, "main")
        commit = app.commit({"größe.txt": branch})
        found = git_source.resolve(str(app.path), branch, files=("größe.txt",))
        assert (found.ref, found.commit) == (f"refs/heads/{branch}", commit)
        tree = git_source.check_out(found, tmp_path / commit)
        assert (tree / "größe.txt").read_text() == branch


def test_two_names_never_have_one_slug_because_their_letters_are_left_out() -> None:
    def slug(name: str) -> str | None:
        push = support.generic_push(ref=f"refs/heads/{name}")
        return PushEvent.model_validate(push).fields["slug"]

    slugs = [slug(name) for name in ("feature/追加", "feature/削除", "🚀", "🚁", "feature/ü", "feature")]
    assert len(set(slugs)) == 6
    assert slugs[5] == "feature"
    assert str(slugs[0]).startswith("feature-")
    assert slug("%%") is not None
    assert slug("v1.2") == "v1.2"


@pytest.mark.parametrize(
    "name",
    [
        "acme/.github",
        "acme/_",
        "acme/c++",
        "acme/100%",
        "acme/a#b",
        "acme/a@b",
        "~jdoe/shop",
        "команда/магазин",
        "チーム/店",
        "acme/🚀",
        "acme/" + "r" * 100,
        "/".join(["group"] * 20 + ["shop"]),
        "acme/shop.git",
    ],
)
def test_a_repository_of_any_name_that_forges_allow_is_published_or_ignored(tmp_path: Path, name: str) -> None:
    push = support.github_push()
    push["repository"]["full_name"] = name
    with _receiver(tmp_path, repositories=["**"]) as (receiver, _):
        assert _send(receiver, push).body["status"] == "stored"
        event = github.parse({"x-github-event": "push"}, json.dumps(push).encode())
        assert isinstance(event, PushEvent)
    (tmp_path / "other").mkdir()
    with _receiver(tmp_path / "other") as (receiver, _):
        answer = _send(receiver, push)
    assert (answer.status, answer.body["status"]) == (202, "ignored")


@pytest.mark.parametrize(
    "name",
    ["", "/shop", "acme/", "acme//shop", "acme/..", "acme/.", "acme/-x", "a b", "a\u202eb", "a\u00a0b", "a\u2028b"],
)
def test_a_name_that_could_be_taken_for_something_else_is_refused(tmp_path: Path, name: str) -> None:
    push = support.github_push()
    push["repository"]["full_name"] = name
    with _receiver(tmp_path, repositories=["**"], branches=["**"]) as (receiver, _):
        assert _send(receiver, push).status == 422
        assert _send(receiver, support.github_push(ref=f"refs/heads/{name.removeprefix('acme/')}")).status == 422


@pytest.mark.parametrize(
    "clone_url",
    [
        "https://dev.example/My%20Project/_git/shop",
        "https://127.0.0.1/team/shop.git",
        "https://forge.example/команда/магазин.git",
        "file:///srv/shop.git",
        "",
    ],
)
def test_the_clone_url_of_an_event_that_no_rule_names_does_not_matter(tmp_path: Path, clone_url: str) -> None:
    push = support.github_push()
    push["repository"]["clone_url"] = clone_url
    with _receiver(tmp_path) as (receiver, _):
        assert _send(receiver, push).status == 422
        answer = _send(receiver, push | {"ref": "refs/heads/other"})
        assert (answer.status, answer.body["rules"]) == (202, {"shop": "another branch"})
        push["repository"]["full_name"] = "other/shop"
        assert _send(receiver, push).body["rules"] == {"shop": "another repository"}


# Deliveries that come again.


def _end(outbox: Outbox, answer: Answer, outcome: str | None) -> None:
    """Hand the run over, and have Prefect say what became of it; None for a run that Prefect refuses."""
    run = outbox.claim()
    assert run is not None
    assert run.key == answer.body["runs"][0]["key"]
    if outcome is None:
        outbox.fail(run, "refused")
        return
    outbox.dispatched(run, f"run-{run.id}")
    outbox.set_outcome(run, outcome)


@pytest.mark.parametrize("outcome", ["FAILED", "CRASHED", None])
def test_a_redelivery_of_an_event_whose_publication_failed_starts_a_new_run(
    tmp_path: Path, outcome: str | None
) -> None:
    with _receiver(tmp_path) as (receiver, outbox):
        keys = []
        for _ in range(4):
            answer = _send(receiver, support.github_push())
            assert answer.body["status"] == "stored"
            keys += [run["key"] for run in answer.body["runs"]]
            assert _send(receiver, support.github_push()).body["status"] == "duplicate"
            _end(outbox, answer, outcome)
        assert len(set(keys)) == 4
        first, second = (outbox.run(key) for key in keys[:2])
        assert first is not None
        assert second is not None
        assert second.parameters == first.parameters


@pytest.mark.parametrize(
    "outcome", ["COMPLETED", "RUNNING", "PENDING", "SCHEDULED", "PAUSED", "CANCELLING", "CANCELLED", "UNKNOWN"]
)
def test_a_redelivery_of_an_event_that_runs_or_has_ended_otherwise_starts_nothing(tmp_path: Path, outcome: str) -> None:
    with _receiver(tmp_path) as (receiver, outbox):
        answer = _send(receiver, support.github_push())
        _end(outbox, answer, outcome)
        again = _send(receiver, support.github_push())
        assert (again.body["status"], again.body["runs"]) == ("duplicate", answer.body["runs"])
        assert outbox.claim() is None


def test_only_the_rules_whose_run_failed_start_again(tmp_path: Path) -> None:
    configuration = support.configuration(tmp_path, rules=[support.rule(), support.rule(name="shop-2")])
    with Outbox(configuration.outbox) as outbox:
        receiver = Receiver(configuration, outbox, Metrics())
        first = _send(receiver, support.github_push())
        for outcome in ("COMPLETED", "FAILED"):
            run = outbox.claim()
            assert run is not None
            outbox.dispatched(run, run.key)
            outbox.set_outcome(run, outcome)
        again = _send(receiver, support.github_push())
        assert again.body["status"] == "stored"
        assert again.body["runs"][0] == first.body["runs"][0]
        assert again.body["runs"][1]["key"] == f"{first.body['runs'][1]['key']}.2"
        run = outbox.claim()
        assert run is not None
        assert run.rule == "shop-2"
        assert outbox.claim() is None


@pytest.mark.parametrize(("newer", "status"), [(None, "duplicate"), ("COMPLETED", "duplicate"), ("FAILED", "stored")])
def test_an_older_event_does_not_start_again_beside_a_newer_one_of_its_branch(
    tmp_path: Path, newer: str | None, status: str
) -> None:
    with _receiver(tmp_path) as (receiver, outbox):
        _end(outbox, _send(receiver, support.github_push()), "FAILED")
        push = support.github_push(after="d" * 40, head_commit={"id": "d" * 40})
        answer = _send(receiver, push)
        if newer is not None:
            _end(outbox, answer, newer)
        assert _send(receiver, support.github_push()).body["status"] == status
        pending = outbox.run(answer.body["runs"][0]["key"])
        assert pending is not None
        assert pending.state.value != "superseded"


def test_an_event_that_starts_again_counts_for_the_limit_of_its_source(tmp_path: Path) -> None:
    configuration = support.configuration(tmp_path, limits={"events_per_minute": 2})
    with Outbox(configuration.outbox) as outbox:
        receiver = Receiver(configuration, outbox, Metrics())
        for _ in range(2):
            _end(outbox, _send(receiver, support.github_push()), "FAILED")
        assert _send(receiver, support.github_push()).status == 429


def test_a_run_that_was_retried_after_it_failed_is_not_started_again(tmp_path: Path) -> None:
    with _receiver(tmp_path) as (receiver, outbox):
        _end(outbox, _send(receiver, support.github_push()), "FAILED")
        (run,) = outbox.ended(1, within_s=100)
        outbox.set_outcome(run, "RUNNING")
        assert _send(receiver, support.github_push()).body["status"] == "duplicate"
