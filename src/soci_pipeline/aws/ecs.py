"""Find the images of a repository that Amazon ECS runs or would start next, which retention must keep.

Reads the task definitions of services (including deployments and task sets that are still rolling out) and of running
tasks, and the digests of the tasks' containers. IAM actions: ecs:ListClusters (only for ``*``), ecs:DescribeClusters,
ecs:ListServices, ecs:DescribeServices, ecs:ListTasks, ecs:DescribeTasks and ecs:DescribeTaskDefinition.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from soci_pipeline.aws.client import calling, config, session
from soci_pipeline.aws.ecr import EcrRegistry
from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.reference import ImageReference

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_ecs.client import ECSClient

EVERY_CLUSTER = "*"
_ARN = re.compile(r"arn:aws[a-z-]*:ecs:(?P<region>[a-z0-9-]+):[0-9]{12}:cluster/[A-Za-z0-9_-]{1,255}\Z")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}\Z")
# ECS limits on the items of one Describe call.
_CLUSTERS, _SERVICES, _TASKS = 100, 10, 100


@dataclass(frozen=True, slots=True)
class InUse:
    """The digests of one repository that run or are requested, and the tags that task definitions refer to."""

    digests: frozenset[Digest]
    tags: frozenset[str]


def images_in_use(clusters: Sequence[str], image: ImageReference, aws: "boto3.Session | None" = None) -> InUse:
    """Return what the clusters (names, ARNs, or ``*`` for all in the region) use of the repository of ``image``.

    A name is looked up in the region of an ECR registry, otherwise in the default region. ``aws`` is the session whose
    credentials are used, None for boto3's default chain. Raises `InvalidInput` for a missing cluster, since an empty
    result would let everything be deleted; and the errors of `aws.client.calling`.
    """
    found = _Images(image)
    for region, names in _by_region(clusters, image).items():
        with calling("ecs:DescribeClusters", on=", ".join(names)):
            client = (aws or session()).client("ecs", region_name=region, config=config())
        for cluster in _active(client, names):
            _read(client, cluster, found)
    return InUse(frozenset(found.digests), frozenset(found.tags))


class _Images:
    """Collects the images of one repository; ignores those of other repositories."""

    def __init__(self, image: ImageReference) -> None:
        self._name = image.name
        self.digests: set[Digest] = set()
        self.tags: set[str] = set()

    def add(self, text: str, digest: str | None = None) -> None:
        """Add an image reference of a task definition or container, and the digest of the container if known."""
        try:
            named = ImageReference.parse(text)
        except InvalidInput:
            if self._name in text:
                raise
            return
        if named.name != self._name:
            return
        if digest:
            self.digests.add(Digest(digest))
        if named.digest is not None:
            self.digests.add(named.digest)
        else:
            # Docker, and therefore ECS, defaults to this tag.
            self.tags.add(named.tag or "latest")


def _by_region(clusters: Sequence[str], image: ImageReference) -> dict[str | None, list[str]]:
    place = EcrRegistry.parse(image.registry)
    own = place.region if place is not None and place.account is not None else None
    found: dict[str | None, list[str]] = {}
    for cluster in clusters:
        arn = _ARN.match(cluster)
        if arn is None and cluster != EVERY_CLUSTER and not _NAME.match(cluster):
            raise InvalidInput(
                f"{cluster[:100]!r} is not an ECS cluster", advice="Use its name or ARN, or * for all clusters."
            )
        found.setdefault(arn["region"] if arn else own, []).append(cluster)
    return found


def _active(client: "ECSClient", names: Sequence[str]) -> list[str]:
    wanted = set(names) - {EVERY_CLUSTER}
    if EVERY_CLUSTER in names:
        with calling("ecs:ListClusters", on="this region"):
            pages = client.get_paginator("list_clusters").paginate()
            wanted |= {arn for page in pages for arn in page["clusterArns"]}
    found = []
    for chunk in _chunks(sorted(wanted), _CLUSTERS):
        with calling("ecs:DescribeClusters", on=", ".join(chunk)):
            answer = client.describe_clusters(clusters=chunk)
        found += [cluster["clusterArn"] for cluster in answer["clusters"] if cluster.get("status") != "INACTIVE"]
        missing = [str(each.get("arn")) for each in answer.get("failures", ())]
        missing += [c["clusterArn"] for c in answer["clusters"] if c.get("status") == "INACTIVE"]
        if missing:
            raise InvalidInput(
                f"ECS cluster not found: {', '.join(missing)}",
                advice="Nothing was deleted. Correct the name or the region, or omit the cluster.",
            )
    return found


def _read(client: "ECSClient", cluster: str, found: _Images) -> None:
    definitions = set(_of_services(client, cluster))
    for task in _tasks(client, cluster):
        definitions.add(str(task["taskDefinitionArn"]))
        for container in task.get("containers", ()):
            if container.get("image"):
                found.add(str(container["image"]), container.get("imageDigest"))
    for definition in sorted(definitions):
        with calling("ecs:DescribeTaskDefinition", on=definition):
            answer = client.describe_task_definition(taskDefinition=definition)
        for container in answer["taskDefinition"]["containerDefinitions"]:
            if container.get("image"):
                found.add(str(container["image"]))


def _of_services(client: "ECSClient", cluster: str) -> Iterator[str]:
    with calling("ecs:ListServices", on=cluster):
        services = [
            arn for page in client.get_paginator("list_services").paginate(cluster=cluster)
            for arn in page["serviceArns"]
        ]  # fmt: skip
    for chunk in _chunks(services, _SERVICES):
        with calling("ecs:DescribeServices", on=cluster):
            answer = client.describe_services(cluster=cluster, services=chunk)
        for service in answer["services"]:
            rollouts: list[Mapping[str, Any]] = [service, *service.get("deployments", ()), *service.get("taskSets", ())]
            yield from (str(each["taskDefinition"]) for each in rollouts if each.get("taskDefinition"))


def _tasks(client: "ECSClient", cluster: str) -> Iterator[Mapping[str, Any]]:
    with calling("ecs:ListTasks", on=cluster):
        tasks = [
            arn for page in client.get_paginator("list_tasks").paginate(cluster=cluster) for arn in page["taskArns"]
        ]
    for chunk in _chunks(tasks, _TASKS):
        with calling("ecs:DescribeTasks", on=cluster):
            yield from client.describe_tasks(cluster=cluster, tasks=chunk)["tasks"]


def _chunks(values: Iterable[str], size: int) -> Iterator[list[str]]:
    listed = list(values)
    for start in range(0, len(listed), size):
        yield listed[start : start + size]
