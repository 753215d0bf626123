"""Clone URLs and hosts of events: what is rejected by default, and where a rule's credentials may go."""

import json
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.webhook.clone_urls import CloneUrl
from soci_pipeline.webhook.errors import EventRefused
from soci_pipeline.webhook.events import ImageEvent, PushEvent
from soci_pipeline.webhook.rules import PlannedRun, plan
from soci_pipeline.webhook.sources import generic
from tests.support import webhook as support


@pytest.mark.parametrize(
    ("url", "origin", "repository"),
    [
        ("https://github.example/team/shop.git", ("https", "github.example", 443), "team/shop"),
        ("https://GitHub.example:8443/team/shop", ("https", "github.example", 8443), "team/shop"),
        ("http://git.internal/team/shop.git", ("http", "git.internal", 80), "team/shop"),
        ("http://10.1.2.3/team/shop.git", ("http", "10.1.2.3", 80), "team/shop"),
        ("https://[2001:db8::1]/team/shop", ("https", "2001:db8::1", 443), "team/shop"),
        ("ssh://git@git.example:2222/team/shop.git", ("ssh", "git.example", 2222), "team/shop"),
        ("git@git.example:team/shop.git", ("ssh", "git.example", 22), "team/shop"),
        ("git@forge:team/shop.git", ("ssh", "forge", 22), "team/shop"),
        (
            "codecommit::eu-west-1://shop",
            ("https", "git-codecommit.eu-west-1.amazonaws.com", 443),
            "v1/repos/shop",
        ),
    ],
)
def test_a_clone_url_is_read(url: str, origin: tuple[str, str, int], repository: str) -> None:
    parsed = CloneUrl.parse(url)
    assert (parsed.origin, parsed.repository) == (origin, repository)


REJECTED = [
    "https://git.example/team/$(id).git",
    "https://git.example/team/`id`.git",
    "https://git.example/team/'shop'.git",
    'https://git.example/team/"shop".git',
    "https://git.example/team/shop;id",
    "https://git.example/team/shop|id",
    "https://git.example/team/shop&id",
    "https://git.example/team/shop?a=b",
    "https://git.example/team/shop#a",
    "https://git.example/team/sh op",
    "https://git.example/team/%2e%2e/shop",
    "https://git.example/../shop",
    "https://git.example/team\\shop",
    "https://git.example\\@evil.example/team/shop",
    "https://git.example@evil.example/team/shop",
    "https://git.exämple/team/shop",
    "https://\uff11\uff12\uff17.0.0.1/team/shop",
    "javascript:alert(1)",
    "javascript:alert",
    "JavaScript:alert",
    "data:text/html,x",
    "vbscript:x",
    "mailto:a@b",
    "ftp://git.example/team/shop",
    "file:///etc",
    "/etc",
    "./shop",
    "ext::sh",
    "git.example",
    "https:///team/shop",
    "https://git.example:0/team/shop",
    "https://git.example:99999/team/shop",
    "ssh://a@b@git.example/team/shop",
    "ssh://-oProxyCommand=id/x",
    "git@-oProxyCommand=id:x",
    "codecommit::eu-west-1://admin@shop",
    "https://169.254.169.254/latest/meta-data",
    "http://[fe80::1]/team/shop",
    "http://[fe80::1%25eth0]/team/shop",
    "http://[::ffff:169.254.169.254]/x",
    "http://[fd00:ec2::254]/latest",
    "http://metadata.google.internal/x",
    "http://metadata.google.internal./x",
    "http://metadata.goog/x",
    "http://168.63.129.16/x",
    "http://192.0.0.192/x",
    "http://100.100.100.200/x",
    "http://[64:ff9b:1::a9fe:a9fe]/x",
    "http://[2002:a9fe:a9fe::1]/x",
    "http://[2001:db8::5efe:169.254.169.254]/x",
    "HTTPS://git.example/team/shop",
    "http://224.0.0.1/x",
    "http://2130706433/team/shop",
    "http://0x7f000001/team/shop",
    "http://0x7f.1/team/shop",
    "http://017700000001/x",
    "http://127.1/team/shop",
    "http://127.0.0.01/x",
    "",
]


@pytest.mark.parametrize("url", REJECTED)
def test_a_clone_url_that_no_event_may_name_is_rejected(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        CloneUrl.parse(url)
    with pytest.raises(EventRefused):
        generic.parse(json.dumps(support.generic_push(clone_url=url)).encode())


LOOPBACK = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "0.1.2.3",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "git.localhost",
    "localhost.localdomain",
    "ip6-localhost",
    "localhost4",
    "localhost4.localdomain4",
    "forge.localdomain",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "[64:ff9b:1::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[2001:0:7f00:1::1]",
    "[2001:db8::200:5efe:127.0.0.1]",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_a_loopback_host_is_rejected_unless_the_configuration_allows_it(tmp_path: Path, host: str) -> None:
    event = PushEvent.model_validate(support.generic_push(clone_url=f"http://{host}:8080/team/shop.git"))
    with pytest.raises(EventRefused, match="loopback"):
        plan(support.configuration(tmp_path), "github", event)
    allowing = support.configuration(tmp_path, allow_loopback_hosts=True)
    assert len(plan(allowing, "github", event).runs) == 1


def test_the_registry_of_a_pushed_image_is_checked_as_well(tmp_path: Path) -> None:
    fields = {"tag": "v1", "digest": "sha256:" + "0" * 64}
    for repository in ("169.254.169.254/a", "2130706433/a", "metadata.google.internal/a"):
        with pytest.raises(ValueError, match=r"metadata|not a valid host"):
            ImageEvent.model_validate(fields | {"repository": repository})
    event = ImageEvent.model_validate(fields | {"repository": "127.0.0.1:5000/team/shop"})
    with pytest.raises(EventRefused, match="loopback"):
        plan(support.configuration(tmp_path), "github", event)


# Credentials.

PARAMETERS = support.rule()["parameters"] | {"source_credentials": "secret/git-token"}


def planned(folder: Path, clone_url: str, repository: str = "team/shop", **rule: Any) -> tuple[PlannedRun, ...]:
    fields = {"parameters": PARAMETERS, "repositories": ["**"], "clone_hosts": ["https://git.example"]} | rule
    configuration = support.configuration(folder, rules=[support.rule(**fields)], allow_loopback_hosts=True)
    event = PushEvent.model_validate(support.generic_push(clone_url=clone_url, repository=repository))
    return plan(configuration, "github", event).runs


@pytest.mark.parametrize(
    "credentials", [{"source_credentials": "secret/git"}, {"build_secrets": {"npm": "secret/npm"}}]
)
@pytest.mark.parametrize("source", ["${clone_url}", "https://${slug}/team/shop", "https://git.example${name}/x"])
def test_a_rule_that_hands_credentials_must_pin_its_hosts(
    tmp_path: Path, credentials: dict[str, Any], source: str
) -> None:
    parameters = support.rule()["parameters"] | credentials | {"source": source}
    with pytest.raises(InvalidInput, match=r"clone_hosts: \[https://git.example.com\]") as caught:
        support.configuration(tmp_path, rules=[support.rule(parameters=parameters)])
    assert next(iter(credentials)) in caught.value.reason
    pinned = support.rule(parameters=parameters, clone_hosts=["https://git.example"])
    assert support.configuration(tmp_path, rules=[pinned]).rules[0].clone_hosts == ("https://git.example",)


def test_a_rule_with_a_source_of_its_own_needs_no_pin(tmp_path: Path) -> None:
    parameters = PARAMETERS | {"source": "https://git.example/team/shop.git"}
    assert planned(tmp_path, "https://elsewhere.example/x", clone_hosts=[], parameters=parameters)


@pytest.mark.parametrize("parameters", [{"source_credentials": "secret/${slug}"}, {"build_secrets": {"a": "${name}"}}])
def test_an_event_does_not_choose_the_secret(tmp_path: Path, parameters: dict[str, Any]) -> None:
    rule = support.rule(parameters=support.rule()["parameters"] | parameters, clone_hosts=["https://git.example"])
    with pytest.raises(InvalidInput, match="must not come from an event"):
        support.configuration(tmp_path, rules=[rule])


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("https://git.example", "https://git.example/team/shop.git"),
        ("https://git.example/", "https://GIT.example:443/team/shop"),
        ("https://git.example:443", "https://git.example/team/shop"),
        ("https://git.example:8443", "https://git.example:8443/team/shop"),
        ("https://git.example/forge", "https://git.example/forge/team/shop.git"),
        ("ssh://git.example", "git@git.example:team/shop.git"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000/team/shop.git"),
    ],
)
def test_credentials_go_to_the_repository_on_a_pinned_host(tmp_path: Path, host: str, url: str) -> None:
    (run,) = planned(tmp_path, url, clone_hosts=["https://other.example", host])
    assert (run.parameters["source"], run.parameters["source_credentials"]) == (url, "secret/git-token")


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/team/shop.git",
        "https://git.example.evil.example/team/shop.git",
        "https://evil-git.example/team/shop.git",
        "http://git.example/team/shop.git",
        "https://git.example:8443/team/shop.git",
        "ssh://git@git.example/team/shop.git",
        "git@git.example:team/shop.git",
        "https://git.example/team/other.git",
        "https://git.example/evil/team/shop.git",
        "https://git.example/team/shop/more",
        "https://git.example/Team/shop",
        "https://git.example/team/shop.git.git",
        "https://git.example/team//shop",
    ],
)
def test_credentials_go_to_no_other_scheme_host_port_or_repository(tmp_path: Path, url: str) -> None:
    with pytest.raises(EventRefused, match="clone_hosts"):
        planned(tmp_path, url)


def test_a_source_that_a_rule_makes_of_an_event_is_compared_too(tmp_path: Path) -> None:
    parameters = PARAMETERS | {"source": "https://git.example/${repository}.git"}
    assert planned(tmp_path, "https://elsewhere.example/x", parameters=parameters)
    with pytest.raises(EventRefused, match="clone_hosts"):
        planned(tmp_path, "https://git.example/team/shop", parameters=PARAMETERS | {"source": "https://${slug}/x"})


def test_a_rule_may_pin_hosts_without_credentials(tmp_path: Path) -> None:
    with pytest.raises(EventRefused, match="clone_hosts"):
        planned(tmp_path, "https://evil.example/team/shop", parameters=support.rule()["parameters"])


@pytest.mark.parametrize(
    "host", ["git.example", "javascript:x", "https://", "file:///", "https://169.254.169.254", "*"]
)
def test_a_pin_that_is_not_a_host_is_rejected(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidInput, match="clone_hosts"):
        support.configuration(tmp_path, rules=[support.rule(clone_hosts=[host])])
