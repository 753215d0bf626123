"""ECR's own deletion and listing, against an emulated control plane over HTTP; its digests are the emulator's own."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from soci_pipeline.aws.client import AwsRefused
from soci_pipeline.aws.ecr_images import EcrImages
from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.errors import RegistryError
from tests.support.aws import put_image, unique
from tests.support.webhook import Recorded, loopback

REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
LATER = datetime.now(UTC) + timedelta(days=365)


@pytest.fixture
def ecr(shared_aws: str) -> Any:
    return boto3.client("ecr")


@pytest.fixture
def repository(ecr: Any) -> str:
    name = unique("team/app")
    ecr.create_repository(repositoryName=name)
    return name


def left(ecr: Any, repository: str) -> set[str]:
    return {each["imageDigest"] for each in ecr.list_images(repositoryName=repository)["imageIds"]}


def test_more_than_a_hundred_manifests_go_in_several_calls(ecr: Any, repository: str) -> None:
    digests = [put_image(ecr, repository, number, f"v{number}") for number in range(105)]
    assert EcrImages(REGISTRY).delete_manifests(repository, digests[:103]) == {}
    assert left(ecr, repository) == set(digests[103:])


def test_what_is_gone_already_is_fine(ecr: Any, repository: str) -> None:
    digest = put_image(ecr, repository, 1, "v1")
    for _ in range(2):
        assert EcrImages(REGISTRY).delete_manifests(repository, [digest]) == {}
    assert left(ecr, repository) == set()


def test_a_tag_is_taken_off_and_never_the_last_one(ecr: Any, repository: str) -> None:
    digest = put_image(ecr, repository, 1, "v1", "latest")
    images = EcrImages(REGISTRY)
    images.delete_tag(repository, "latest")
    with pytest.raises(RegistryError, match="last tag") as caught:
        images.delete_tag(repository, "v1")
    assert caught.value.status == 405
    assert left(ecr, repository) == {digest}


def test_only_manifests_without_a_tag_that_are_old_enough_are_listed(ecr: Any, repository: str) -> None:
    put_image(ecr, repository, 1, "v1")
    bare = put_image(ecr, repository, 2)
    images = EcrImages(REGISTRY)
    assert images.untagged(repository, pushed_before=LATER) == [bare]
    assert images.untagged(repository, pushed_before=LATER - timedelta(days=730)) == []


def test_a_repository_that_is_not_there_is_an_error(ecr: Any) -> None:
    images = EcrImages(REGISTRY)
    with pytest.raises(AwsRefused, match="ecr:DescribeImages"):
        images.untagged("no/such", pushed_before=LATER)
    with pytest.raises(AwsRefused, match="ecr:BatchDeleteImage"):
        images.delete_manifests("no/such", [Digest("sha256:" + "0" * 64)])


@pytest.mark.parametrize("registry", ["registry.example.com", "public.ecr.aws"])
def test_another_registry_has_no_such_interface(registry: str) -> None:
    with pytest.raises(InvalidInput, match="not a private ECR registry"):
        EcrImages(registry)


def refusing(failures: list[Mapping[str, Any]]) -> Any:
    """ECR as it answers where an image cannot be deleted, which the emulator never says."""

    def answer(request: Recorded) -> tuple[int, Any]:
        assert request.headers["x-amz-target"].endswith(".BatchDeleteImage")
        return 200, {"imageIds": [], "failures": failures}

    return loopback(answer)


def failure(digest: Digest, code: str) -> Mapping[str, Any]:
    return {"imageId": {"imageDigest": str(digest)}, "failureCode": code, "failureReason": "because"}


def test_an_image_that_an_untagged_index_lists_stays_with_the_reason(ecr: Any) -> None:
    one, two = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)
    failures = [failure(one, "ImageReferencedByManifestList"), failure(two, "ImageNotFound")]
    with refusing(failures) as url:
        stayed = EcrImages(REGISTRY, endpoint_url=url).delete_manifests("team/app", [one, two])
    assert list(stayed) == [one]
    assert "untagged" in stayed[one]


def test_every_other_refusal_is_an_error_that_says_which_and_why(ecr: Any) -> None:
    one = Digest("sha256:" + "1" * 64)
    with refusing([failure(one, "KmsError")]) as url, pytest.raises(RegistryError, match=f"{one}.*because") as caught:
        EcrImages(REGISTRY, endpoint_url=url).delete_manifests("team/app", [one])
    assert caught.value.code == "KmsError"
