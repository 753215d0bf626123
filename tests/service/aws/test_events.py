"""Events of EventBridge: the two that start something, and everything else refused."""

import json
from typing import Any

import pytest

from soci_pipeline.aws.events import CodeCommitEvent, EcrPushEvent, parse_event
from soci_pipeline.errors import InvalidInput

COMMIT = "c" * 40
DIGEST = "sha256:" + "7f" * 32


def codecommit(**detail: Any) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "01234567-EXAMPLE",
        "detail-type": "CodeCommit Repository State Change",
        "source": "aws.codecommit",
        "account": "123456789012",
        "time": "2026-11-24T03:33:41Z",
        "region": "eu-west-1",
        "resources": ["arn:aws:codecommit:eu-west-1:123456789012:shop"],
        "detail": {
            "event": "referenceUpdated",
            "repositoryName": "shop",
            "repositoryId": "12345678-1234-5678-abcd-12345678abcd",
            "referenceType": "branch",
            "referenceName": "main",
            "referenceFullName": "refs/heads/main",
            "commitId": COMMIT,
            "oldCommitId": "d" * 40,
            "callerUserArn": "arn:aws:iam::123456789012:user/dev",
        }
        | detail,
    }


def ecr_push(**detail: Any) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "13cde686-328b-6117-af20-0e5566167482",
        "detail-type": "ECR Image Action",
        "source": "aws.ecr",
        "account": "123456789012",
        "time": "2026-11-16T01:54:34Z",
        "region": "us-west-2",
        "resources": [],
        "detail": {
            "result": "SUCCESS",
            "repository-name": "team/app",
            "image-digest": DIGEST,
            "action-type": "PUSH",
            "image-tag": "latest",
        }
        | detail,
    }


def test_a_push_to_codecommit_has_its_commit_and_clone_address() -> None:
    event = parse_event(json.dumps(codecommit()))
    assert isinstance(event, CodeCommitEvent)
    assert event.detail.commit_id == COMMIT
    assert event.clone_url == "https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/shop"


def test_a_region_of_china_has_its_own_domain() -> None:
    event = parse_event(ecr_push() | {"region": "cn-north-1"})
    assert isinstance(event, EcrPushEvent)
    assert event.repository == "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/team/app"


def test_a_manifest_pushed_by_digest_has_no_tag() -> None:
    document = ecr_push()
    del document["detail"]["image-tag"]
    event = parse_event(document)
    assert isinstance(event, EcrPushEvent)
    assert event.detail.image_tag == ""
    assert event.detail.image_digest == DIGEST


@pytest.mark.parametrize(
    "document",
    [
        codecommit(event="commentOnCommitCreated"),
        codecommit(repositoryName="../x"),
        codecommit(referenceType="note"),
        ecr_push(**{"action-type": "DELETE"}),
        ecr_push(**{"image-digest": "sha256:short"}),
        ecr_push(**{"image-tag": "-x"}),
        ecr_push(**{"repository-name": "--upload-pack=x"}),
        ecr_push() | {"region": "nowhere"},
        ecr_push() | {"account": "1"},
        ecr_push() | {"source": "aws.s3"},
        {},
        [],
        "text",
        b"{",
        b"\xff",
    ],
)
def test_an_event_of_another_shape_is_refused_with_its_fields(document: Any) -> None:
    with pytest.raises(InvalidInput, match="not a CodeCommit or ECR event:"):
        parse_event(document)
