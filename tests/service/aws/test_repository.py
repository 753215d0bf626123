"""Repositories on ECR's control plane: found, made once, and made as the settings say."""

import json
from typing import Any

import boto3
import pytest

from soci_pipeline.aws.lifecycle import ExpiringTags
from soci_pipeline.aws.repository import NewRepository, ensure_repository
from soci_pipeline.errors import InvalidInput
from soci_pipeline.registry.tag_mutability import TagMutability
from tests.support.aws import ACCOUNT, REGION, REGISTRY, answering, refusal
from tests.support.webhook import Recorded, loopback


def _described(**fields: Any) -> tuple[int, dict[str, Any]]:
    known = {"repositoryUri": f"{REGISTRY}/team/app", "repositoryArn": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/a"}
    return 200, {"repositories": [known | fields]}


def test_a_missing_repository_is_named_and_only_made_when_asked(aws: str) -> None:
    with pytest.raises(InvalidInput, match="team/app"):
        ensure_repository(REGISTRY, "team/app")
    assert boto3.client("ecr", region_name=REGION).describe_repositories()["repositories"] == []
    made = ensure_repository(REGISTRY, "team/app", create=NewRepository())
    assert made.created
    assert made.uri == f"{REGISTRY}/team/app"
    again = ensure_repository(REGISTRY, "team/app", create=NewRepository())
    assert not again.created
    assert again.arn == made.arn


def test_a_new_repository_is_immutable_scanned_and_encrypted(aws: str) -> None:
    ensure_repository(REGISTRY, "team/app", create=NewRepository())
    (made,) = boto3.client("ecr", region_name=REGION).describe_repositories()["repositories"]
    assert made["imageTagMutability"] == "IMMUTABLE"
    assert made["imageScanningConfiguration"] == {"scanOnPush": True}
    assert made["encryptionConfiguration"] == {"encryptionType": "AES256"}


def test_a_key_of_the_account_s_own_encrypts_a_new_repository(aws: str) -> None:
    key = boto3.client("kms", region_name=REGION).create_key()["KeyMetadata"]["Arn"]
    ensure_repository(REGISTRY, "team/app", create=NewRepository(kms_key=key))
    (made,) = boto3.client("ecr", region_name=REGION).describe_repositories()["repositories"]
    assert made["encryptionConfiguration"] == {"encryptionType": "KMS", "kmsKey": key}


def test_short_lived_tags_get_a_lifecycle_policy_that_is_kept_if_there_is_one(aws: str) -> None:
    new = NewRepository(expiring=ExpiringTags(("pr-*",), 7))
    made = ensure_repository(REGISTRY, "team/app", create=new)
    client = boto3.client("ecr", region_name=REGION)
    there = client.get_lifecycle_policy(repositoryName="team/app")["lifecyclePolicyText"]
    assert json.loads(there)["rules"][0]["selection"]["tagPatternList"] == ["pr-*"]
    assert made.lifecycle is not None
    assert json.loads(made.lifecycle) == json.loads(there)
    again = ensure_repository(REGISTRY, "team/app", create=NewRepository(expiring=ExpiringTags(("else-*",), 1)))
    assert again.lifecycle is not None
    assert "pr-*" in again.lifecycle


def test_a_policy_that_could_not_be_put_is_put_the_next_time(aws: str) -> None:
    ensure_repository(REGISTRY, "team/app", create=NewRepository())
    later = ensure_repository(REGISTRY, "team/app", create=NewRepository(expiring=ExpiringTags(("pr-*",), 7)))
    assert not later.created
    assert later.lifecycle is not None


def test_a_repository_that_another_run_has_just_made_is_taken_as_it_is(credentials: None) -> None:
    missing, exists = refusal("RepositoryNotFoundException"), refusal("RepositoryAlreadyExistsException")
    without = refusal("LifecyclePolicyNotFoundException")
    with answering(missing, exists, _described(imageTagMutability="MUTABLE"), without) as ecr:
        found = ensure_repository(REGISTRY, "team/app", create=NewRepository(), endpoint_url=ecr.url)
        asked = ["DescribeRepositories", "CreateRepository", "DescribeRepositories", "GetLifecyclePolicy"]
        assert ecr.asked == asked
    assert not found.created
    assert found.mutability == TagMutability()


def test_throttling_is_waited_out(credentials: None) -> None:
    slow = refusal("ThrottlingException", "Rate exceeded")
    without = refusal("LifecyclePolicyNotFoundException")
    with answering(slow, slow, _described(), without) as ecr:
        ensure_repository(REGISTRY, "team/app", endpoint_url=ecr.url)
        assert ecr.asked == ["DescribeRepositories"] * 3 + ["GetLifecyclePolicy"]


def test_the_registry_of_another_account_and_region_is_asked_there(credentials: None) -> None:
    other = "210987654321.dkr.ecr.us-gov-west-1.amazonaws.com"
    asked: set[tuple[str, str, str]] = set()
    answers: dict[str, tuple[int, Any]] = {
        "DescribeRepositories": refusal("RepositoryNotFoundException"),
        "CreateRepository": (200, {"repository": _described()[1]["repositories"][0]}),
        "GetLifecyclePolicy": refusal("LifecyclePolicyNotFoundException"),
        "PutLifecyclePolicy": (200, {}),
    }

    def answer(request: Recorded) -> tuple[int, Any]:
        operation = request.headers["x-amz-target"].rpartition(".")[2]
        region = request.headers["authorization"].split("/")[2]
        asked.add((operation, request.body["registryId"], region))
        return answers[operation]

    with loopback(answer) as url:
        new = NewRepository(expiring=ExpiringTags(("pr-*",), 7))
        assert ensure_repository(other, "team/app", create=new, endpoint_url=url).created
    assert asked == {(operation, "210987654321", "us-gov-west-1") for operation in answers}
    with answering(refusal("RepositoryNotFoundException")) as ecr, pytest.raises(InvalidInput, match="210987654321"):
        ensure_repository(other, "team/app", endpoint_url=ecr.url)


@pytest.mark.parametrize("registry", ["public.ecr.aws", "docker.io", "127.0.0.1:5000"])
def test_a_registry_that_is_not_ecr_is_refused(registry: str) -> None:
    with pytest.raises(InvalidInput, match="not a private ECR registry"):
        ensure_repository(registry, "team/app", create=NewRepository())


@pytest.mark.parametrize(
    ("mode", "filters", "moving", "fixed"),
    [
        ("MUTABLE", [], "latest", None),
        ("IMMUTABLE", [], None, "latest"),
        ("IMMUTABLE_WITH_EXCLUSION", ["latest", "dev-*"], "dev-3", "v1.0"),
        ("MUTABLE_WITH_EXCLUSION", ["v*"], "latest", "v1.0"),
    ],
)
def test_all_four_rules_for_tags_are_read(
    credentials: None, mode: str, filters: list[str], moving: str | None, fixed: str | None
) -> None:
    excluded = [{"filterType": "WILDCARD", "filter": each} for each in filters]
    answer = _described(imageTagMutability=mode, imageTagMutabilityExclusionFilters=excluded)
    with answering(answer, refusal("LifecyclePolicyNotFoundException")) as ecr:
        rule = ensure_repository(REGISTRY, "team/app", endpoint_url=ecr.url).mutability
    assert rule.mode == mode
    assert moving is None or rule.allows_moving(moving)
    assert fixed is None or not rule.allows_moving(fixed)
