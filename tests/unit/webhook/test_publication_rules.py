"""Rules of a receiver that come from a publications file, or name a publication of one."""

import json
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.publications.file import load as load_publications
from soci_pipeline.webhook.configuration import Configuration
from soci_pipeline.webhook.errors import EventRefused
from soci_pipeline.webhook.events import PushEvent
from soci_pipeline.webhook.publication_rules import check_rules
from soci_pipeline.webhook.rules import Plan, plan
from tests.support import webhook as support

WEB: dict[str, Any] = {
    "name": "web",
    "image": "registry.example.com/acme/web",
    "source": "https://git.example.com/acme/shop.git",
    "source_credentials": "secret/git-token",
    "tags": ["latest"],
}
RULE: dict[str, Any] = {"sources": ["github"], "repositories": ["team/*"], "branches": ["main"]}


def publications(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "publications.yaml"
    # JSON is YAML, and has no aliases for what is there twice.
    path.write_text(json.dumps({"version": 1, "owner": "acme", "publications": list(entries)}, indent=2))
    return path


def configuration(folder: Path, *entries: dict[str, Any], **changes: Any) -> Configuration:
    publications(folder, *entries)
    return support.configuration(folder, **{"publications": "publications.yaml"} | changes)


def fault(folder: Path, *entries: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        configuration(folder, *entries, **changes)
    return caught.value.reason


def pushed(found: Configuration) -> Plan:
    source = found.source("github")
    assert source is not None
    event = source.parse({"x-github-event": "push"}, json.dumps(support.github_push()).encode())
    assert isinstance(event, PushEvent)
    return plan(found, "github", event)


def test_a_publication_with_a_webhook_rule_is_a_rule_of_the_receiver(tmp_path: Path) -> None:
    found = configuration(tmp_path, WEB | {"webhook": RULE}, WEB | {"name": "quiet"}, rules=[])
    assert [each.name for each in found.rules] == ["web"]
    (run,) = pushed(found).runs
    # The run has what the event says alone: the deployment has the rest, with what was changed in the UI.
    commit = support.github_push()["after"]
    assert (run.deployment, run.parameters) == ("publish-image/web", {"ref": commit})


def test_without_a_rule_of_its_own_the_configuration_has_those_of_the_file(tmp_path: Path) -> None:
    assert [each.name for each in configuration(tmp_path, WEB | {"webhook": RULE}, rules=None).rules] == ["web"]
    assert "rules" in fault(tmp_path, WEB, rules=None)


def test_a_rule_may_name_a_publication_instead_of_a_deployment(tmp_path: Path) -> None:
    rule = RULE | {"name": "own", "publication": "web", "parameters": {"tags": ["${short_commit}"]}}
    found = configuration(tmp_path, WEB, rules=[rule])
    (run,) = pushed(found).runs
    commit = support.github_push()["after"]
    assert run.deployment == "publish-image/web"
    assert run.parameters["ref"] == commit
    assert commit.startswith(run.parameters["tags"][0])


def test_the_parameters_of_rule_and_publication_are_checked_together(tmp_path: Path) -> None:
    rule = RULE | {"name": "own", "publication": "web", "parameters": {"builder": "prebuilt"}}
    found = configuration(tmp_path, WEB, rules=[rule])
    with pytest.raises(EventRefused, match="requires the parameter prebuilt"):
        pushed(found)


def test_credentials_of_a_publication_go_to_no_host_that_an_event_names(tmp_path: Path) -> None:
    rule = RULE | {"name": "own", "publication": "web", "parameters": {"source": "${clone_url}"}}
    assert "list the allowed hosts, for example" in fault(tmp_path, WEB, rules=[rule])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"publication": "wab"}, "rule 'own': publication 'wab' is not in "),
        ({"publication": 1}, "rule 'own': publication '1' is not in "),
        ({"publication": "web", "deployment": "publish-image/web"}, "set deployment or publication, not both"),
        ({"publication": "web", "deployment_parameters": {}}, "deployment_parameters: unknown key"),
        ({"publication": "web", "on": "image", "branches": [], "tags": ["*"]}, "`on` must be push, not image"),
        ({"publication": "web", "parameters": {"ref": "${comit}"}}, "unknown field ${comit}"),
        ({"publication": "web", "parameters": [1]}, "parameters"),
        ({"name": "web", "publication": "web"}, "two rules have the same name"),
    ],
)
def test_a_rule_that_does_not_fit_its_publication_is_rejected(
    tmp_path: Path, rule: dict[str, Any], expected: str
) -> None:
    rules = [RULE | {"name": "own"} | rule]
    assert expected in fault(tmp_path, WEB | {"webhook": RULE}, rules=rules)


def test_a_rule_that_names_a_publication_needs_the_file(tmp_path: Path) -> None:
    rules = [RULE | {"name": "own", "publication": "web"}]
    with pytest.raises(InvalidInput, match="the configuration has no publications file"):
        support.configuration(tmp_path, rules=rules)


def test_a_publications_file_that_is_not_valid_is_named_with_its_line(tmp_path: Path) -> None:
    assert "publications.yaml:" in fault(tmp_path, WEB | {"verify": "never"}, rules=[])
    assert "cannot be read" in fault(tmp_path, WEB, publications="none.yaml")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"branches": []}, "webhook: a rule for pushes requires branches or tags"),
        ({"branches": ["!main"]}, "webhook.branches: the first pattern must not start with '!'"),
        ({"parameters": {"ref": "${comit}"}}, "webhook: unknown field ${comit}"),
        ({"parameters": {"source": "${clone_url}"}}, "webhook: source_credentials would be sent to any host"),
        ({"clone_hosts": ["x y"]}, "webhook.clone_hosts"),
        ({"paths": ["a" * 201]}, "webhook.paths.0"),
    ],
)
def test_setup_finds_what_the_receiver_would_reject(tmp_path: Path, rule: dict[str, Any], expected: str) -> None:
    path = publications(tmp_path, WEB | {"webhook": RULE | rule})
    with pytest.raises(InvalidInput) as caught:
        check_rules(load_publications(path))
    assert f"publication web: {expected}" in caught.value.reason
    assert str(path) in caught.value.reason
