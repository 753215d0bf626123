"""Lifecycle policies: rules by tag are written, and rules that find untagged parts are named."""

import json

import pytest

from soci_pipeline.aws.lifecycle import ExpiringTags, lifecycle_policy, rules_for_untagged
from soci_pipeline.errors import InvalidInput


def test_each_pattern_has_a_rule_of_its_own_and_no_rule_finds_an_untagged_image() -> None:
    policy = lifecycle_policy(ExpiringTags(("pr-*", "dev-*"), 7))
    rules = json.loads(policy)["rules"]
    assert [(rule["rulePriority"], rule["selection"]["tagPatternList"]) for rule in rules] == [
        (1, ["pr-*"]),
        (2, ["dev-*"]),
    ]
    assert {rule["selection"]["countNumber"] for rule in rules} == {7}
    assert rules_for_untagged(policy) == []


@pytest.mark.parametrize(("patterns", "days"), [((), 7), (("*",), 7), (("pr-*", "**"), 7), (("pr-*",), 0)])
def test_a_policy_that_would_empty_the_repository_is_refused(patterns: tuple[str, ...], days: int) -> None:
    with pytest.raises(InvalidInput):
        ExpiringTags(patterns, days)


@pytest.mark.parametrize(("status", "named"), [("untagged", True), ("any", True), ("tagged", False)])
def test_a_rule_that_finds_parts_without_a_tag_is_named(status: str, named: bool) -> None:
    policy = json.dumps({"rules": [{"rulePriority": 3, "selection": {"tagStatus": status}}]})
    assert rules_for_untagged(policy) == ([f"rule 3 ({status})"] if named else [])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rules": [{}]}', '{"rules": [1]}'])
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not a valid ECR lifecycle policy"):
        rules_for_untagged(text)
