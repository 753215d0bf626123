"""The matrix: what a sender may get wrong, and what an attacker may try; each ends before anything is stored."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.webhook.errors import EventRefused
from soci_pipeline.webhook.metrics import Metrics
from soci_pipeline.webhook.outbox import Outbox
from soci_pipeline.webhook.receiver import Answer, Receiver
from soci_pipeline.webhook.sources import generic
from tests.support import webhook as support

NOW = 1_795_500_000.0


class Setup:
    """A receiver with an outbox of its own, and a short way to send to it."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.configuration = support.configuration(folder, **changes)
        self.outbox = Outbox(self.configuration.outbox, busy_timeout_s=0.1)
        self.metrics = Metrics()
        self.woken: list[None] = []
        self.receiver = Receiver(
            self.configuration,
            self.outbox,
            self.metrics,
            on_stored=lambda: self.woken.append(None),
            clock=lambda: NOW,
        )

    def send(self, event: Any, *, headers: dict[str, str] | None = None, source: str = "github") -> Answer:
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        return self.receiver.receive(source, support.github_headers(body) if headers is None else headers, body)

    @property
    def stored(self) -> int:
        return sum(self.outbox.counts().values())


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def test_a_signed_push_is_stored_once_with_its_validated_parameters(setup: Setup) -> None:
    answer = setup.send(support.github_push())
    assert (answer.status, answer.body["status"]) == (202, "stored")
    run = setup.outbox.run(answer.body["runs"][0]["key"])
    assert run is not None
    assert run.parameters == {
        "image": "registry.example/team/shop",
        "source": "https://github.example/team/shop.git",
        "ref": support.COMMIT,
        "tags": ["{short_sha}", "main"],
    }
    assert len(setup.woken) == 1


@pytest.mark.parametrize("secret", [support.SECRET, support.NEW_SECRET])
def test_both_secrets_are_valid_during_a_rotation(setup: Setup, secret: bytes) -> None:
    body = json.dumps(support.github_push()).encode()
    assert setup.send(body, headers=support.github_headers(body, secret=secret)).status == 202


def test_a_secret_that_was_rotated_out_is_refused_without_a_restart(setup: Setup, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"another secret of 32 characters.")
    assert setup.send(support.github_push()).status == 401
    assert setup.stored == 0


def test_one_secret_file_may_be_away_while_the_other_is_there(setup: Setup, tmp_path: Path) -> None:
    (tmp_path / "new").unlink()
    assert setup.send(support.github_push()).status == 202
    (tmp_path / "old").unlink()
    assert setup.send(support.github_push()).status == 503


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        " ",
        "sha256=",
        "sha256=" + "0" * 64,
        "sha1=" + "0" * 40,
        "0" * 64,
        "sha256=é",
        "x" * 100_000,
    ],
)
def test_absent_empty_and_wrong_signatures_are_refused_alike(setup: Setup, signature: str | None) -> None:
    body = json.dumps(support.github_push()).encode()
    headers = support.github_headers(body)
    del headers["x-hub-signature-256"]
    if signature is not None:
        headers["x-hub-signature-256"] = signature
    answer = setup.send(body, headers=headers)
    assert answer.status == 401
    assert answer.body == {"error": "unauthorized", "detail": "The credentials are missing or wrong."}
    assert setup.stored == 0


def test_a_truncated_signature_and_a_truncated_body_are_refused(setup: Setup) -> None:
    body = json.dumps(support.github_push()).encode()
    headers = support.github_headers(body)
    assert setup.send(body[:-1], headers=headers).status == 401
    assert (
        setup.send(body, headers=headers | {"x-hub-signature-256": headers["x-hub-signature-256"][:-1]}).status == 401
    )


def test_a_signature_in_capitals_is_another_signature(setup: Setup) -> None:
    body = json.dumps(support.github_push()).encode()
    headers = support.github_headers(body)
    upper = "sha256=" + headers["x-hub-signature-256"].removeprefix("sha256=").upper()
    assert setup.send(body, headers=headers | {"x-hub-signature-256": upper}).status == 401


def test_a_replay_under_a_fresh_delivery_id_is_recognised(setup: Setup) -> None:
    body = json.dumps(support.github_push()).encode()
    first = setup.send(body, headers=support.github_headers(body, delivery="1"))
    again = setup.send(body, headers=support.github_headers(body, delivery="2"))
    assert (again.status, again.body["status"]) == (202, "duplicate")
    assert again.body["runs"] == first.body["runs"]
    assert setup.stored == 1
    assert len(setup.woken) == 1


def test_a_replay_under_the_other_secret_is_recognised(setup: Setup) -> None:
    body = json.dumps(support.github_push()).encode()
    setup.send(body)
    assert (
        setup.send(body, headers=support.github_headers(body, secret=support.NEW_SECRET)).body["status"] == "duplicate"
    )


def test_a_replay_with_another_event_header_starts_nothing(setup: Setup) -> None:
    body = json.dumps(support.github_push()).encode()
    setup.send(body)
    assert setup.send(body, headers=support.github_headers(body, event="release")).body["status"] == "ignored"
    assert setup.stored == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ref": "refs/heads/feature"}, "another branch"),
        ({"ref": "refs/heads/release/1/2"}, "another branch"),
        ({"ref": "refs/tags/nightly"}, "another tag"),
        (
            {"repository": {"full_name": "other/shop", "clone_url": "https://github.example/other/shop.git"}},
            "another repository",
        ),
    ],
)
def test_a_push_that_no_rule_wants_is_answered_with_the_reason(setup: Setup, changes: Any, reason: str) -> None:
    answer = setup.send(support.github_push(**changes))
    assert (answer.status, answer.body["status"]) == (202, "ignored")
    assert answer.body["rules"] == {"shop": reason}
    assert setup.stored == 0


def test_a_deleted_branch_and_a_ping_are_ignored(setup: Setup) -> None:
    assert setup.send(support.github_push(deleted=True, after=support.ZERO)).body["reason"] == "the ref was deleted"
    body = b'{"zen": "x"}'
    assert setup.send(body, headers=support.github_headers(body, event="ping")).body["reason"] == "a ping"


@pytest.mark.parametrize(
    "ref",
    [
        "refs/heads/--upload-pack=touch /tmp/x",
        "refs/heads/--upload-pack",
        "--upload-pack=x",
        "refs/heads/$(id)",
        "refs/heads/`id`",
        "refs/heads/main\n",
        "refs/heads/main\nmain",
        "refs/heads/a b",
        "refs/heads/../../etc",
        "refs/heads/a..b",
        "refs/heads/main;id",
        "refs/heads/main|id",
        "refs/heads/main&id",
        "refs/heads/'main'",
        "refs/heads/${commit}",
        "refs/heads/{{ 7 }}",
        "refs/heads/main\x00",
        "refs/heads/",
        "refs/heads/.hidden",
        "refs/heads/a.lock",
        "refs/heads/@{-1}",
        "refs/notes/x",
        "main",
        "refs/heads/" + "a" * 300,
    ],
)
def test_an_injection_in_a_ref_is_refused(setup: Setup, ref: str) -> None:
    answer = setup.send(support.github_push(ref=ref))
    assert answer.status == 422
    assert setup.stored == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("full_name", "team/--upload-pack"),
        ("full_name", "../team/shop"),
        ("full_name", "team/shop\n"),
        ("full_name", "team/$(id)"),
        ("clone_url", "ext::sh -c id"),
        ("clone_url", "--upload-pack=id"),
        ("clone_url", "/etc"),
        ("clone_url", "file:///etc"),
        ("clone_url", "https://user:secret@github.example/team/shop.git"),
        ("clone_url", "https://github.example/team/shop.git\n"),
        ("clone_url", " https://github.example/team/shop.git"),
        ("clone_url", "ssh://-oProxyCommand=id/x"),
    ],
)
def test_an_injection_in_the_repository_is_refused(setup: Setup, field: str, value: str) -> None:
    repository = support.github_push()["repository"] | {field: value}
    answer = setup.send(support.github_push(repository=repository))
    assert answer.status == 422
    assert "secret@" not in str(answer.body)
    assert setup.stored == 0


def test_a_commit_that_is_none_is_refused(setup: Setup) -> None:
    for commit in ("HEAD", "-x", "c0ffee", support.COMMIT + "\n", support.COMMIT.upper()):
        assert setup.send(support.github_push(after=commit, head_commit=None)).status == 422


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        b'{"ref": 7}',
        b"[" * 50_000,
        b'{"a":' * 50_000,
        b"1" * 10_000,
        json.dumps(support.github_push(commits="many")).encode(),
        json.dumps(support.github_push(repository=None)).encode(),
    ],
)
def test_a_signed_body_of_an_unknown_shape_is_refused(setup: Setup, body: bytes) -> None:
    answer = setup.send(body)
    assert (answer.status, answer.body["error"]) == (422, "refused")
    assert setup.stored == 0


def test_a_form_is_not_taken(setup: Setup) -> None:
    body = b"payload=%7B%7D"
    headers = support.github_headers(body) | {"content-type": "application/x-www-form-urlencoded"}
    assert setup.send(body, headers=headers).status == 415


def test_parameters_that_the_flow_would_refuse_are_refused_before_a_run_is_stored(tmp_path: Path) -> None:
    parameters = {"image": "registry.example/shop:tag", "source": "${clone_url}", "platforms": ["linux/amd46"]}
    setup = Setup(tmp_path, rules=[support.rule(parameters=parameters)])
    answer = setup.send(support.github_push())
    assert answer.status == 422
    assert "image" in answer.body["detail"]
    assert "platforms" in answer.body["detail"]
    assert setup.stored == 0


def test_a_branch_field_is_empty_for_a_tag_and_the_event_is_refused(tmp_path: Path) -> None:
    parameters = {"image": "registry.example/shop", "source": "${clone_url}", "tags": ["${branch}"]}
    setup = Setup(tmp_path, rules=[support.rule(parameters=parameters)])
    assert setup.send(support.github_push(ref="refs/tags/v1")).status == 422


def test_one_event_may_start_several_runs_each_with_its_own_key(tmp_path: Path) -> None:
    setup = Setup(tmp_path, rules=[support.rule(), support.rule(name="other")])
    runs = setup.send(support.github_push()).body["runs"]
    assert [run["rule"] for run in runs] == ["shop", "other"]
    assert len({run["key"] for run in runs}) == 2


def test_the_same_event_of_two_sources_is_two_events(tmp_path: Path) -> None:
    sources = [support.document(tmp_path)["sources"][0] | {"name": name} for name in ("github", "mirror")]
    setup = Setup(tmp_path, sources=sources, rules=[support.rule(sources=["github", "mirror"], supersede=False)])
    assert setup.send(support.github_push()).body["status"] == "stored"
    assert setup.send(support.github_push(), source="mirror").body["status"] == "stored"


def test_too_many_requests_of_one_address_are_told_when_to_come_again(tmp_path: Path) -> None:
    setup = Setup(tmp_path, limits={"requests_per_minute": 2})
    assert [setup.receiver.admit("github", "a") for _ in range(2)] == [None, None]
    third = setup.receiver.admit("github", "a")
    assert third is not None
    assert (third.status, third.headers["Retry-After"].isdigit()) == (429, True)
    assert setup.receiver.admit("github", "b") is None


def test_too_many_verified_events_of_one_source_are_bounded_and_forgeries_do_not_count(tmp_path: Path) -> None:
    setup = Setup(tmp_path, limits={"events_per_minute": 1})
    for _ in range(5):
        assert setup.send(b"{}", headers={}).status == 401
    assert setup.send(support.github_push()).status == 202
    assert setup.send(support.github_push(before="a" * 40)).status == 429


def test_replays_and_what_starts_nothing_use_up_nothing_of_the_next_event(tmp_path: Path) -> None:
    setup = Setup(tmp_path, limits={"events_per_minute": 2})
    assert setup.send(support.github_push()).status == 202
    for _ in range(5):
        assert setup.send(support.github_push()).body["status"] == "duplicate"
        assert setup.send(support.github_push(ref="refs/heads/other")).body["status"] == "ignored"
    assert setup.send(support.github_push(before="a" * 40)).body["status"] == "stored"


@pytest.mark.parametrize(
    "paths",
    [["a/" * 10_000 + "a"], [f"docs/{number}" for number in range(12_000)], ["d/" * 2000 + str(n) for n in range(300)]],
)
def test_a_push_of_more_or_longer_paths_than_are_compared_is_published_at_once(
    tmp_path: Path, paths: list[str]
) -> None:
    setup = Setup(tmp_path, rules=[support.rule(paths=["**/a/**/b", "src/**"])], limits={"body_bytes": 25 << 20})
    commits = [{"added": paths, "removed": [], "modified": []}]
    before = time.process_time()
    assert setup.send(support.github_push(commits=commits)).body["status"] == "stored"
    assert time.process_time() - before < 1


def test_a_push_of_3000_files_is_compared_with_the_patterns(tmp_path: Path) -> None:
    setup = Setup(tmp_path, rules=[support.rule(paths=["**/src/**/main.py", "**/*.toml"])])
    paths = [f"services/shop{number % 40}/docs/page{number}.md" for number in range(3000)]
    # GitHub lists no more than 3,000 of one commit.
    commits = [{"added": part, "removed": [], "modified": []} for part in (paths[:1500], paths[1500:])]
    assert setup.send(support.github_push(commits=commits)).body["status"] == "ignored"
    commits[1]["added"].append("services/src/a/b/main.py")
    assert setup.send(support.github_push(commits=commits)).body["status"] == "stored"


@pytest.mark.parametrize(
    "paths", [["a" * 4097], [str(n) for n in range(10_001)], ["d" * 4000 + str(n) for n in range(300)]]
)
def test_a_sender_of_its_own_has_to_keep_within_the_bounds_for_paths(paths: list[str]) -> None:
    with pytest.raises(EventRefused, match="paths"):
        generic.parse(json.dumps(support.generic_push(paths=paths)).encode())


def test_an_unknown_source_is_not_found(setup: Setup) -> None:
    assert setup.send({}, source="nobody").status == 404
    answer = setup.receiver.admit("nobody", "a")
    assert answer is not None
    assert answer.status == 404


def test_an_outbox_that_cannot_store_is_answered_with_503(setup: Setup) -> None:
    import sqlite3

    other = sqlite3.connect(setup.configuration.outbox, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    answer = setup.send(support.github_push())
    assert (answer.status, answer.headers["Retry-After"]) == (503, "30")
    other.execute("ROLLBACK")
    other.close()
    assert setup.send(support.github_push()).body["status"] == "stored"


def test_nothing_that_is_logged_or_answered_has_a_secret_in_it(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        answers = [setup.send(support.github_push()), setup.send(b"{}", headers={"x-hub-signature-256": "sha256=beef"})]
    text = caplog.text + str([vars(record) for record in caplog.records]) + str([each.body for each in answers])
    assert support.SECRET.decode() not in text
    assert "beef" not in text
