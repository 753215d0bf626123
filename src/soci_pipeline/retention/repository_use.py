"""What the surroundings of a repository have to say to its retention: what runs, what no tag names, and who deletes."""

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
    """The digests of a repository that services and tasks of ECS clusters use; tags of task definitions are looked up.

    Raises what `aws.ecs.images_in_use` raises: a cluster that cannot be read must stop a deletion.
    """
    if not clusters:
        return frozenset()
    from soci_pipeline.aws.ecs import images_in_use

    used = images_in_use(clusters, image, aws)
    found = set(used.digests)
    for tag in sorted(used.tags):
        descriptor = client.manifests.head(image.repository, tag)
        if descriptor is None:
            logger().warning("a task definition of ECS names %s, which is not there", image.with_tag(tag))
        else:
            found.add(descriptor.digest)
    logger().info("%s: %d digests are in use by ECS", image, len(found))
    return frozenset(found)


def untagged(
    image: ImageReference, older_than: timedelta | None, *, aws: "boto3.Session | None" = None
) -> list[Digest]:
    """The manifests that no tag names, pushed longer ago than that; only ECR can list them.

    Young ones may belong to a publication that has yet to move its tags. Raises `InvalidInput` for other registries.
    """
    if older_than is None:
        return []
    if not _has_own_api(image):
        raise InvalidInput(
            f"{image.registry} cannot list what has no tag", advice="Give the digests to consider, or use ECR."
        )
    from soci_pipeline.aws.ecr_images import EcrImages

    return EcrImages(image.registry, aws).untagged(image.repository, pushed_before=datetime.now(UTC) - older_than)


def remover_for(client: RegistryClient, image: ImageReference, *, aws: "boto3.Session | None" = None) -> Remover:
    """What deletes in the registry of ``image``: ECR's own API there, the distribution API elsewhere."""
    if not _has_own_api(image):
        return OneByOne(client)
    from soci_pipeline.aws.ecr_images import EcrImages

    return EcrImages(image.registry, aws)


def _has_own_api(image: ImageReference) -> bool:
    place = EcrRegistry.parse(image.registry)
    return place is not None and place.account is not None
