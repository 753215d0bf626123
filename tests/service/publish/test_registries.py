"""What a publication asks of a registry before it pushes, with an emulated ECR."""

import json

import boto3
import pytest

from soci_pipeline.publish.registries import prepare
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.tag_mutability import TagMutability
from soci_pipeline.settings import EcrSettings, RegistrySettings, Settings
from tests.support.aws import REGION, REGISTRY


def test_the_settings_of_a_machine_say_how_a_missing_repository_is_made(aws: str) -> None:
    key = boto3.client("kms", region_name=REGION).create_key()["KeyMetadata"]["Arn"]
    wanted = EcrSettings(mutable_tags=("latest", "dev-*"), scan_on_push=False, kms_key=key, expiring_tags=("pr-*",))
    settings = Settings(registry=RegistrySettings(create_repository=True), ecr=wanted)
    rule = prepare(ImageReference.parse(f"{REGISTRY}/team/app"), settings)
    client = boto3.client("ecr", region_name=REGION)
    (made,) = client.describe_repositories()["repositories"]
    assert made["imageTagMutability"] == "IMMUTABLE_WITH_EXCLUSION"
    assert [each["filter"] for each in made["imageTagMutabilityExclusionFilters"]] == ["latest", "dev-*"]
    assert made["imageScanningConfiguration"] == {"scanOnPush": False}
    assert made["encryptionConfiguration"] == {"encryptionType": "KMS", "kmsKey": key}
    assert "pr-*" in client.get_lifecycle_policy(repositoryName="team/app")["lifecyclePolicyText"]
    assert [tag for tag in ("latest", "dev-1", "v1") if rule.allows_moving(tag)] == ["latest", "dev-1"]


def test_a_star_among_the_tags_that_may_move_is_a_repository_without_a_rule(aws: str) -> None:
    settings = Settings(
        registry=RegistrySettings(create_repository=True), ecr=EcrSettings(mutable_tags=("*", "latest"))
    )
    assert prepare(ImageReference.parse(f"{REGISTRY}/team/app"), settings) == TagMutability()
    (made,) = boto3.client("ecr", region_name=REGION).describe_repositories()["repositories"]
    assert made["imageTagMutability"] == "MUTABLE"


def test_a_lifecycle_rule_that_takes_parts_of_images_is_warned_of(aws: str, caplog: pytest.LogCaptureFixture) -> None:
    client = boto3.client("ecr", region_name=REGION)
    client.create_repository(repositoryName="team/app")
    rule = {
        "rulePriority": 3,
        "selection": {
            "tagStatus": "untagged",
            "countType": "sinceImagePushed",
            "countUnit": "days",
            "countNumber": 1,
        },
        "action": {"type": "expire"},
    }
    client.put_lifecycle_policy(repositoryName="team/app", lifecyclePolicyText=json.dumps({"rules": [rule]}))
    prepare(ImageReference.parse(f"{REGISTRY}/team/app"), Settings())
    assert "rule 3 (untagged) in the lifecycle policy of" in caplog.text


@pytest.mark.parametrize("registry", ["127.0.0.1:5000", "public.ecr.aws"])
def test_a_registry_without_rules_for_tags_is_not_asked(registry: str) -> None:
    assert prepare(ImageReference.parse(f"{registry}/team/app"), Settings()) == TagMutability()
