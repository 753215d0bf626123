"""Delete images from ECR, and list untagged ones, with ECR's own API instead of the registry API.

ECR does not support DELETE of the distribution API. IAM actions: ecr:BatchDeleteImage and ecr:DescribeImages.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from soci_pipeline.aws.client import calling, config, session
from soci_pipeline.aws.repository import private_registry
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.errors import RegistryError

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_ecr.client import ECRClient
    from mypy_boto3_ecr.type_defs import ImageFailureTypeDef, ImageIdentifierTypeDef

_BATCH = 100
"""The maximum number of images per ``ecr:BatchDeleteImage`` call."""


class EcrImages:
    """The images of one private ECR registry, as a `retention.remover.Remover`.

    ``aws`` is the session whose credentials are used, None for boto3's default chain. Raises `CredentialsRefused`,
    `AwsUnreachable`, `AwsRefused`, and `InvalidInput` if it is not a private ECR registry.
    """

    def __init__(self, registry: str, aws: "boto3.Session | None" = None, *, endpoint_url: str | None = None) -> None:
        self._place = private_registry(registry)
        with calling("ecr:BatchDeleteImage", on=registry, region=self._place.region):
            self._client: ECRClient = (aws or session()).client(
                "ecr", region_name=self._place.region, endpoint_url=endpoint_url, config=config()
            )

    def delete_manifests(self, repository: str, digests: Sequence[Digest]) -> dict[Digest, str]:
        """Delete manifests and their tags in batches of 100; missing ones are ignored.

        Returns the manifests that ECR keeps because another index references them, with the reason. Raises
        `RegistryError` for all other failures.
        """
        stayed: dict[Digest, str] = {}
        for start in range(0, len(digests), _BATCH):
            chunk = digests[start : start + _BATCH]
            for failure in self._delete(repository, [{"imageDigest": str(each)} for each in chunk]):
                digest = failure.get("imageId", {}).get("imageDigest")
                if failure.get("failureCode") != "ImageReferencedByManifestList" or digest is None:
                    raise _refusal(repository, failure)
                stayed[Digest(digest)] = "an untagged index lists it; include untagged manifests"
        return stayed

    def delete_tag(self, repository: str, tag: str) -> None:
        """Remove a tag but keep its image; raise `RegistryError` for the last tag, since ECR would delete the image."""
        with calling("ecr:DescribeImages", on=repository):
            answer = self._client.describe_images(
                registryId=self._place.account or "", repositoryName=repository, imageIds=[{"imageTag": tag}]
            )
        if any(set(image.get("imageTags", ())) <= {tag} for image in answer["imageDetails"]):
            raise RegistryError(
                f"{tag} is the last tag of its image in {repository}, and ECR would delete the image along with it",
                code="UNSUPPORTED",
                status=405,
            )
        for failure in self._delete(repository, [{"imageTag": tag}]):
            raise _refusal(repository, failure)

    def untagged(self, repository: str, *, pushed_before: datetime) -> list[Digest]:
        """Return untagged manifests that were pushed before a time, sorted; these include the children of indexes."""
        with calling("ecr:DescribeImages", on=repository):
            pages = self._client.get_paginator("describe_images").paginate(
                registryId=self._place.account or "", repositoryName=repository, filter={"tagStatus": "UNTAGGED"}
            )
            return sorted(
                Digest(image["imageDigest"])
                for page in pages
                for image in page["imageDetails"]
                if not image.get("imageTags") and image["imagePushedAt"] < pushed_before
            )

    def _delete(self, repository: str, images: "Sequence[ImageIdentifierTypeDef]") -> "list[ImageFailureTypeDef]":
        """Delete images; return the failures, except for images that do not exist."""
        with calling("ecr:BatchDeleteImage", on=f"{self._place.host}/{repository}"):
            answer = self._client.batch_delete_image(
                registryId=self._place.account or "", repositoryName=repository, imageIds=images
            )
        return [each for each in answer.get("failures", ()) if each.get("failureCode") != "ImageNotFound"]


def _refusal(repository: str, failure: "ImageFailureTypeDef") -> RegistryError:
    which = failure.get("imageId", {})
    return RegistryError(
        f"ECR did not delete {which.get('imageDigest') or which.get('imageTag')} of {repository}: "
        f"{failure.get('failureReason', '')[:300]}",
        code=str(failure.get("failureCode")),
    )
