"""What ECS uses of a repository, asked of an emulated ECS over HTTP."""

import json
from typing import Any

import boto3
import pytest

from local_stack.ports import LOOPBACK, free_port
from soci_pipeline.aws.client import AwsUnreachable
from soci_pipeline.aws.ecs import images_in_use
from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.reference import ImageReference
from tests.support.aws import REGION, unique
from tests.support.webhook import Recorded, loopback

IMAGE = ImageReference.parse("registry.example.com/team/app")
ONE, TWO = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)


@pytest.fixture
def ecs(shared_aws: str) -> Any:
    return boto3.client("ecs")


@pytest.fixture
def cluster(ecs: Any) -> str:
    name = unique("cluster")
    ecs.create_cluster(clusterName=name)
    return name


def define(ecs: Any, *images: str) -> str:
    containers = [{"name": f"c{number}", "image": image, "memory": 64} for number, image in enumerate(images)]
    answer = ecs.register_task_definition(family=unique("family"), containerDefinitions=containers)
    return str(answer["taskDefinition"]["taskDefinitionArn"])


def serve(ecs: Any, cluster: str, *images: str) -> str:
    name = unique("service")
    ecs.create_service(cluster=cluster, serviceName=name, taskDefinition=define(ecs, *images), desiredCount=0)
    return name


def test_the_digests_and_tags_of_services_are_found_and_other_repositories_are_not(ecs: Any, cluster: str) -> None:
    serve(ecs, cluster, f"{IMAGE.name}@{ONE}", "registry.example.com/team/other:v1", "debian")
    serve(ecs, cluster, f"{IMAGE.name}:v7", f"{IMAGE.name}:v8@{TWO}", f"{IMAGE.name}-worker:v9")
    found = images_in_use([cluster], IMAGE)
    assert (set(found.digests), set(found.tags)) == ({ONE, TWO}, {"v7"})


def test_an_image_without_a_tag_means_latest(ecs: Any, cluster: str) -> None:
    serve(ecs, cluster, IMAGE.name)
    assert images_in_use([cluster], IMAGE).tags == {"latest"}


def test_what_a_service_is_moving_away_from_is_in_use_until_the_rollout_ends(
    monkeypatch: pytest.MonkeyPatch, ecs: Any
) -> None:
    """The emulator ends a rollout at once, so these are answers as ECS gives them in the midst of one."""
    arn = "arn:aws:ecs:eu-west-1:123456789012:cluster/shop"

    def answer(request: Recorded) -> tuple[int, Any]:
        operation = request.headers["x-amz-target"].rpartition(".")[2]
        if operation == "DescribeTaskDefinition":
            image = f"{IMAGE.name}:{request.body['taskDefinition']}"
            return 200, {"taskDefinition": {"containerDefinitions": [{"image": image}]}}
        rollout = [{"status": "PRIMARY", "taskDefinition": "new"}, {"status": "ACTIVE", "taskDefinition": "old"}]
        service = {"taskDefinition": "new", "deployments": rollout, "taskSets": [{"taskDefinition": "blue"}]}
        task = {"taskDefinitionArn": "alone", "containers": [{"image": f"{IMAGE.name}:old", "imageDigest": str(ONE)}]}
        return 200, {
            "DescribeClusters": {"clusters": [{"clusterArn": arn, "status": "ACTIVE"}], "failures": []},
            "ListServices": {"serviceArns": ["s"]},
            "DescribeServices": {"services": [service]},
            "ListTasks": {"taskArns": ["t"]},
            "DescribeTasks": {"tasks": [task]},
        }[operation]

    with loopback(answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        found = images_in_use(["shop"], IMAGE)
    assert (set(found.digests), set(found.tags)) == ({ONE}, {"new", "old", "blue", "alone"})


def test_tasks_that_no_service_started_count_too(ecs: Any, cluster: str) -> None:
    ec2 = boto3.client("ec2")
    instance = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)["Instances"][0]
    document = {"instanceId": instance["InstanceId"], "region": REGION, "accountId": "123456789012"}
    ecs.register_container_instance(cluster=cluster, instanceIdentityDocument=json.dumps(document))
    ecs.run_task(cluster=cluster, taskDefinition=define(ecs, f"{IMAGE.name}@{ONE}"), count=1)
    assert images_in_use([cluster], IMAGE).digests == {ONE}


def test_more_services_than_one_call_takes_are_all_read(ecs: Any, cluster: str) -> None:
    for number in range(23):
        serve(ecs, cluster, f"{IMAGE.name}:v{number}")
    assert images_in_use([cluster], IMAGE).tags == {f"v{number}" for number in range(23)}


def test_a_star_is_every_cluster_and_an_arn_says_its_region(ecs: Any, cluster: str) -> None:
    serve(ecs, cluster, f"{IMAGE.name}:here")
    far = boto3.client("ecs", region_name="us-east-2")
    name = unique("far")
    arn = far.create_cluster(clusterName=name)["cluster"]["clusterArn"]
    serve(far, name, f"{IMAGE.name}:there")
    assert "here" in images_in_use(["*"], IMAGE).tags
    assert images_in_use([cluster, arn], IMAGE).tags == {"here", "there"}


def test_a_name_is_looked_up_in_the_region_of_the_registry(ecs: Any) -> None:
    image = ImageReference.parse("123456789012.dkr.ecr.us-east-2.amazonaws.com/app")
    far = boto3.client("ecs", region_name="us-east-2")
    name = unique("far")
    far.create_cluster(clusterName=name)
    serve(far, name, f"{image.name}:v1")
    assert images_in_use([name], image).tags == {"v1"}


@pytest.mark.parametrize("name", ["no-such-cluster", "not a name", "arn:aws:ecs:eu-west-1:1:cluster/x", ""])
def test_a_cluster_that_is_not_there_is_an_error_and_never_an_empty_answer(ecs: Any, name: str) -> None:
    with pytest.raises(InvalidInput, match="ECS cluster"):
        images_in_use([name], IMAGE)


def test_a_cluster_that_was_deleted_is_an_error(ecs: Any, cluster: str) -> None:
    ecs.delete_cluster(cluster=cluster)
    with pytest.raises(InvalidInput, match="ECS cluster not found"):
        images_in_use([cluster], IMAGE)


def test_an_endpoint_that_does_not_answer_is_an_error(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{LOOPBACK}:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(AwsUnreachable, match="ecs:DescribeClusters"):
        images_in_use(["cluster"], IMAGE)
