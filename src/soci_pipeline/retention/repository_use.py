"""Environment-specific parts of retention: digests that ECS uses, untagged manifests in ECR, and the remover."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from soci_pipeline.aws.ecr import EcrRegistry
from soci_pipeline.errors import InvalidInput
from soci_pipeline.log import logger
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.retention.remover import OneByOne, Remover

if TYPE_CHECKING:
    import boto3


def in_use_by_ecs(
    client: RegistryClient, image: ImageReference, clusters: Sequence[str], *, aws: "boto3.Session | None" = None
) -> frozenset[Digest]:
    """Return the digests in a repository that services and tasks of ECS clusters use; resolve tags to digests.

    Raises what `aws.ecs.images_in_use` raises, because nothing may be deleted if a cluster cannot be read.
    """
    if not clusters:
        return frozenset()
    from soci_pipeline.aws.ecs import images_in_use

    used = images_in_use(clusters, image, aws)
    found = set(used.digests)
    for tag in sorted(used.tags):
        descriptor = client.manifests.head(image.repository, tag)
        if descriptor is None:
            logger().warning("an ECS task definition names %s, which does not exist", image.with_tag(tag))
        else:
            found.add(descriptor.digest)
    logger().info("%s: %d digests are in use by ECS", image, len(found))
    return frozenset(found)


def untagged(
    image: ImageReference, older_than: timedelta | None, *, aws: "boto3.Session | None" = None
) -> list[Digest]:
    """Return the untagged manifests that were pushed longer than ``older_than`` ago; only ECR can list them.

    Younger ones may belong to a publication that has not moved its tags yet. Raises `InvalidInput` for other
    registries. Empty if ``older_than`` is None.
    """
    if older_than is None:
        return []
    if not _has_own_api(image):
        raise InvalidInput(
            f"{image.registry} cannot list untagged manifests", advice="List the digests to consider, or use ECR."
        )
    from soci_pipeline.aws.ecr_images import EcrImages

    return EcrImages(image.registry, aws).untagged(image.repository, pushed_before=datetime.now(UTC) - older_than)


def remover_for(client: RegistryClient, image: ImageReference, *, aws: "boto3.Session | None" = None) -> Remover:
    """Return the remover for the registry of ``image``: ECR's API for ECR, otherwise the distribution API."""
    if not _has_own_api(image):
        return OneByOne(client)
    from soci_pipeline.aws.ecr_images import EcrImages

    return EcrImages(image.registry, aws)


def _has_own_api(image: ImageReference) -> bool:
    place = EcrRegistry.parse(image.registry)
    return place is not None and place.account is not None
