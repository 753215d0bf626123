"""The configuration file: what it refuses, and what its secrets, patterns and templates mean."""

import datetime
import re
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from soci_pipeline.errors import InvalidInput
from soci_pipeline.webhook.configuration import load
from soci_pipeline.webhook.errors import EventRefused
from soci_pipeline.webhook.globs import Patterns
from soci_pipeline.webhook.secret_values import SecretSource
from soci_pipeline.webhook.service import check_secrets
from soci_pipeline.webhook.templates import fill, placeholders
from tests.support import webhook as support

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "triggers.md"


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    configuration = support.configuration(tmp_path)
    assert configuration.rules[0].supersede
    assert configuration.source("github") is not None
    assert configuration.source("x") is None
    check_secrets(configuration)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"outboks": "x"}, "outboks"),
        ({"rules": []}, "rules"),
        ({"sources": []}, "sources"),
        ({"rules": [support.rule(sources=["nobody"])]}, "nobody"),
        ({"rules": [support.rule(), support.rule()]}, "two rules have the same name"),
        ({"rules": [support.rule(repositories=[])]}, "list the repositories"),
        ({"rules": [support.rule(branches=[], tags=[])]}, "branches or tags"),
        ({"rules": [support.rule(branches=["!main"])]}, "nothing to exclude yet"),
        ({"rules": [support.rule(deployment="prune-repository/prune")]}, "publish-image"),
        ({"rules": [support.rule(deployment="publish-image")]}, "deployment"),
        ({"rules": [support.rule(parameters={"ref": "${comit}"})]}, r"unknown field \$\{comit\}"),
        ({"rules": [support.rule(on="image")]}, "does not allow branches"),
        ({"rules": [support.rule(on="image", branches=[], tags=[])]}, "tags"),
        ({"limits": {"body_bytes": 10**9}}, "body_bytes"),
        ({"prefect": {"api_url": "not an address"}}, "api_url"),
        ({"sources": [{"kind": "github", "name": "github", "secrets": []}]}, "secrets"),
        ({"sources": [{"kind": "github", "name": "github", "secrets": ["plain text"]}]}, "secrets"),
        ({"sources": [{"kind": "github", "name": "github", "secrets": [{"env": "A", "file": "/b"}]}]}, "either"),
        ({"sources": [{"kind": "github", "name": "github", "secrets": [{}]}]}, "either"),
        ({"sources": [{"kind": "github", "name": "github", "secrets": [{"env": "A"}] * 3}]}, "secrets"),
        ({"sources": [{"kind": "github", "name": "../x", "secrets": [{"env": "A"}]}]}, "name"),
    ],
)
def test_a_fault_in_the_file_is_named(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        support.configuration(tmp_path, **changes)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (datetime.date(2026, 1, 2), "ref: 2026-01-02 is a date or time, which JSON does not support"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "ref: 2026-01-02 03:04:05.*is a date or time"),
        (b"hunter2", r"ref: the value is binary data \(!!binary\)"),
        ({"a", "b"}, r"ref: the value is a set \(!!set\)"),
        (float("inf"), "is not a finite number"),
    ],
)
def test_a_parameter_that_json_does_not_have_is_named_with_its_key(tmp_path: Path, value: Any, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        support.configuration(tmp_path, rules=[support.rule(parameters={"ref": value})])


def test_a_secret_that_was_written_itself_is_not_shown(tmp_path: Path) -> None:
    source = {"kind": "github", "name": "github", "secrets": ["marked-secret"]}
    with pytest.raises(InvalidInput, match="secrets") as caught:
        support.configuration(tmp_path, sources=[source])
    assert "marked-secret" not in "".join(traceback.format_exception(caught.value))


def test_a_fault_of_a_rule_is_not_said_twice(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        support.configuration(tmp_path, rules=[support.rule(branchs=["main"])])
    assert "branchs" in caught.value.reason
    assert "at least 1 item" not in caught.value.reason


def test_the_configurations_of_the_documentation_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    whole, queue = blocks[0], blocks[1]
    (tmp_path / "whole.yaml").write_text(whole)
    configuration = load(tmp_path / "whole.yaml")
    assert configuration.rules[0].tags.matches("v1")
    assert not configuration.rules[0].tags.matches("v0.9")
    document = yaml.safe_load(whole)
    document["sources"] += yaml.safe_load(queue.replace("…", "x"))
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(document))
    assert load(tmp_path / "both.yaml").source("aws") is not None


def test_the_key_on_needs_no_quotes(tmp_path: Path) -> None:
    rule = support.rule(on="image", branches=[], deployment="index-image/index", parameters={"soci": {"version": "v2"}})
    text = yaml.safe_dump(support.document(tmp_path, rules=[rule])).replace("'on':", "on:").replace('"on":', "on:")
    path = tmp_path / "unquoted.yaml"
    path.write_text(text)

    assert "\n  on: image\n" in text
    assert load(path).rules[0].on == "image"


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(yaml.safe_dump(support.document(tmp_path)) + "\noutbox: /elsewhere\n")
    with pytest.raises(InvalidInput, match="duplicate key"):
        load(path)


@pytest.mark.parametrize("text", ["", "[]", "a: [", "!!python/object/apply:os.system [id]", "\x00", "rules: !!set {a}"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput):
        load(path)


@pytest.mark.parametrize(("text", "fault"), [("", "is empty"), ("- a\n", "has no top-level keys")])
def test_a_file_without_keys_is_said_to_have_none(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        load(path)
    assert caught.value.reason == f"the configuration {path} {fault}"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="absent") as caught:
        load(tmp_path / "absent")
    assert "The page Triggers of the project's documentation" in str(caught.value.advice)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("outbox: /a\nrules: [\n", "line 3: "),
        ("outbox: /a\nrules: []\noutbox: /b\n", "line 3: duplicate key 'outbox'"),
        ("outbox: /a\n\x00", "(character 12 of the file)"),
    ],
)
def test_what_is_no_yaml_comes_with_the_name_and_the_line_of_the_file(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        load(path)
    assert f"the configuration {path} is not valid YAML: " in caught.value.reason
    assert fault in caught.value.reason
    assert "<unicode string>" not in caught.value.reason
    assert "The page Triggers of the project's documentation" in str(caught.value.advice)


def test_a_fault_of_a_rule_or_a_source_is_named_by_its_name_in_plain_words(tmp_path: Path) -> None:
    rules = [support.rule(), support.rule(name="images", on="image"), support.rule(name="No Name", repos=[])]
    sources = [{"kind": "gitlab", "name": "lab", "tokens": [], "token": "x"}]
    with pytest.raises(InvalidInput) as caught:
        support.configuration(tmp_path, rules=rules, sources=sources, rulez=[])
    lines = caught.value.reason.splitlines()[1:]
    assert "  - rule images: a rule for images does not allow branches or paths" in lines or (
        "  - rule images: a rule for images requires tags" in lines
    )
    assert "  - rules.2.repos: unknown key" in lines
    assert "  - source lab.gitlab.token: unknown key" in lines
    assert "  - rulez: unknown key" in lines
    assert "The page Triggers of the project's documentation" in str(caught.value.advice)


def test_a_short_empty_or_missing_secret_stops_the_start(tmp_path: Path) -> None:
    configuration = support.configuration(tmp_path)
    for content, fault in ((b"short", "at least 16 are required"), (b"\n", "empty"), (b"whsec_!", "base64")):
        (tmp_path / "old").write_bytes(content)
        with pytest.raises(InvalidInput, match=fault):
            check_secrets(configuration)
    (tmp_path / "old").unlink()
    with pytest.raises(InvalidInput, match="cannot be read"):
        check_secrets(configuration)


def test_a_secret_may_be_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "value\n")
    assert SecretSource(env="A_KEY").read() == b"value"
    assert "value" not in repr(SecretSource(env="A_KEY"))


@pytest.mark.parametrize(
    ("patterns", "name", "fits"),
    [
        (["main"], "main", True),
        (["main"], "main2", False),
        (["release/*"], "release/1", True),
        (["release/*"], "release/1/2", False),
        (["release/**"], "release/1/2", True),
        (["**/api/**"], "services/api/main.py", True),
        (["**/api/**"], "api/main.py", True),
        (["*", "!dev"], "dev", False),
        (["*", "!d*", "dev"], "dev", True),
        (["v?.0"], "v1.0", True),
        (["v?.0"], "v/.0", False),
        (["a.c"], "abc", False),
        (["*"], "a\nb", True),
        ([], "main", False),
    ],
)
def test_patterns(patterns: list[str], name: str, fits: bool) -> None:
    assert Patterns.model_validate(patterns).matches(name) is fits


def test_templates_are_filled_inside_strings_only_and_once() -> None:
    fields = {"commit": "c", "branch": "${commit}", "tag": None}
    value = {"a": ["${commit}-x", 7, None], "${commit}": {"b": "${branch}"}, "c": "$${commit} $commit {commit}"}
    assert fill(value, fields) == {
        "a": ["c-x", 7, None],
        "${commit}": {"b": "${commit}"},
        "c": "${commit} $commit {commit}",
    }
    with pytest.raises(EventRefused, match="tag"):
        fill("${tag}", fields)


def test_an_escaped_field_is_not_a_field() -> None:
    assert placeholders("$${nothing} ${commit}", kind="push") == {"commit"}


@given(st.text())
def test_what_an_event_says_is_never_read_as_a_template(text: str) -> None:
    assert fill("${commit}", {"commit": text}) == text


def _with_status(folder: Path, api_url: str) -> Any:
    github = support.document(folder)["sources"][0]
    status = {"token": {"env": "FORGE_TOKEN"}, "api_url": api_url}
    return support.configuration(folder, sources=[github | {"status": status}])


@pytest.mark.parametrize("api_url", ["http://forge.example/api/v4", "http://10.0.0.5/api", "http://[2001:db8::1]/api"])
def test_a_token_for_statuses_is_not_sent_over_http(tmp_path: Path, api_url: str) -> None:
    with pytest.raises(InvalidInput, match=r"source github.*api_url: .*must be an https URL"):
        _with_status(tmp_path, api_url)


@pytest.mark.parametrize("api_url", ["https://api.github.com/", "http://127.0.0.1:3000/api", "http://[::1]:80/api"])
def test_a_token_for_statuses_is_sent_over_https_or_to_loopback(tmp_path: Path, api_url: str) -> None:
    assert _with_status(tmp_path, api_url)
