"""`soci-pipeline prune` where an emulated ECS says what is in use."""

import boto3

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.oci.layout import Layout
from soci_pipeline.registry.client import RegistryClient
from tests.support.aws import unique
from tests.support.published import REPOSITORY
from tests.support.releases import two_releases


def pruned(client: RegistryClient, *arguments: str) -> list[str]:
    return ["prune", f"{client.registry}/{REPOSITORY}", "--json", *arguments]


def test_what_ecs_would_start_stays_by_its_tag(client: RegistryClient, layout: Layout, shared_aws: str) -> None:
    two_releases(client, layout)
    ecs, cluster = boto3.client("ecs"), unique("cluster")
    ecs.create_cluster(clusterName=cluster)
    images = (f"{client.registry}/{REPOSITORY}:{name}" for name in ("v1", "v0-that-is-gone"))
    task = ecs.register_task_definition(
        family=unique("shop"),
        containerDefinitions=[{"name": f"c{n}", "memory": 64, "image": image} for n, image in enumerate(images)],
    )
    definition = task["taskDefinition"]["taskDefinitionArn"]
    ecs.create_service(cluster=cluster, serviceName="shop", taskDefinition=definition, desiredCount=0)

    assert main(pruned(client, "--in-use-ecs", "misspelt", "--keep", "nothing")) == ExitCode.INVALID_INPUT
    assert set(client.tags.list(REPOSITORY)) == {"v1", "v2"}
    assert main(pruned(client, "--in-use-ecs", cluster)) == 0

    assert client.tags.list(REPOSITORY) == ("v1",)
