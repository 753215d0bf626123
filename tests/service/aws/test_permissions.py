"""What each role may do is what the code behind it calls: recorded where boto3 calls, declared where others do."""

import ast
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.handlers
import pytest

from deployments.machine.secret_environment import environment
from soci_pipeline.aws.ecr import EcrCredentials
from soci_pipeline.aws.ecr_actions import CHECK, CREATE, LOGIN
from soci_pipeline.aws.ecr_actions import PRUNE as PRUNE_ACTIONS
from soci_pipeline.aws.ecr_actions import PULL as PULL_ACTIONS
from soci_pipeline.aws.ecr_actions import PUSH as PUSH_ACTIONS
from soci_pipeline.aws.ecr_images import EcrImages
from soci_pipeline.aws.ecs import EVERY_CLUSTER, images_in_use
from soci_pipeline.aws.secrets import read_secret
from soci_pipeline.publish.registries import prepare
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import EcrSettings, RegistrySettings, Settings
from soci_pipeline.webhook.metrics import Metrics
from soci_pipeline.webhook.outbox import Outbox
from soci_pipeline.webhook.queue import QueuePoller
from soci_pipeline.webhook.receiver import Receiver
from soci_pipeline.webhook.sources.eventbridge import QueueSource
from tests.support import webhook as support
from tests.support.aws import ACCOUNT, REGION, REGISTRY, put_image
from tests.support.cloudformation import template

REPOSITORY = Path(__file__).resolve().parents[3]

# What ECR asks for a request of the distribution API (ECR user guide, "Amazon ECR Docker and OCI permissions").
PULL = {
    "GET, HEAD /v2/<name>/manifests/<reference>": "ecr:BatchGetImage",
    "GET /v2/<name>/referrers/<digest>": "ecr:BatchGetImage",
    "GET /v2/<name>/blobs/<digest>": "ecr:GetDownloadUrlForLayer",
    "HEAD /v2/<name>/blobs/<digest>": "ecr:BatchCheckLayerAvailability",
}
PUSH = {
    "POST /v2/<name>/blobs/uploads/": "ecr:InitiateLayerUpload",
    "PATCH /v2/<name>/blobs/uploads/<session>": "ecr:UploadLayerPart",
    "PUT /v2/<name>/blobs/uploads/<session>": "ecr:CompleteLayerUpload",
    "PUT /v2/<name>/manifests/<reference>": "ecr:PutImage",
}
PRUNE = {"GET /v2/<name>/tags/list": "ecr:ListImages"}
GIT = {"git fetch": "codecommit:GitPull"}
# Systems Manager user guide, "Creating a custom IAM role for Session Manager".
SSM_AGENT = {
    "registration": "ssm:UpdateInstanceInformation",
    "control channel": "ssmmessages:CreateControlChannel",
    "control channel, opened": "ssmmessages:OpenControlChannel",
    "session": "ssmmessages:CreateDataChannel",
    "session, opened": "ssmmessages:OpenDataChannel",
}
# Who publishes to the public gallery adds this (docs/aws.md); no role of the templates does.
NOT_IN_THE_TEMPLATES = {
    "ecr-public:GetAuthorizationToken",
    # The doctor's: everybody may call the first, and it does without the second.
    "sts:GetCallerIdentity",
    "iam:SimulatePrincipalPolicy",
}

_LATER = datetime.now(UTC) + timedelta(days=365)


@pytest.fixture
def recorded(aws: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The actions that boto3 calls while the test runs, in every session."""
    actions: set[str] = set()

    def note(model: Any, **_: Any) -> None:
        actions.add(f"{model.service_model.signing_name}:{model.name}")

    handlers = [*botocore.handlers.BUILTIN_HANDLERS, ("before-call", note)]
    monkeypatch.setattr(botocore.handlers, "BUILTIN_HANDLERS", handlers)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    return actions


def _allowed(role: str, **conditions: bool) -> set[str]:
    """The actions of a role, with its managed policies, where these conditions hold and all others do."""
    resources = template("roles.yaml")["Resources"]
    properties = resources[role]["Properties"]
    managed = [_chosen(each, conditions) for each in properties["ManagedPolicyArns"]]
    documents = [each["PolicyDocument"] for each in properties["Policies"]]
    documents += [resources[each["Ref"]]["Properties"]["PolicyDocument"] for each in managed]
    found = set()
    for statement in (_chosen(each, conditions) for document in documents for each in document["Statement"]):
        if statement != {"Ref": "AWS::NoValue"}:
            actions = statement["Action"]
            found |= {actions} if isinstance(actions, str) else set(actions)
    return found


def _chosen(part: dict[str, Any], conditions: Mapping[str, bool]) -> dict[str, Any]:
    if "Fn::If" not in part:
        return part
    condition, then, otherwise = part["Fn::If"]
    return dict(then if conditions.get(condition, True) else otherwise)


def _secret() -> str:
    client = boto3.client("secretsmanager", region_name=REGION)
    held = json.dumps({"username": "prefect", "password": "p"})
    return str(client.create_secret(Name="soci-pipeline/build/x", SecretString=held)["ARN"])


def _task(image: str) -> None:
    """A cluster with a service, and a task of its own: both of one container."""
    client, machines = boto3.client("ecs", region_name=REGION), boto3.client("ec2", region_name=REGION)
    client.create_cluster(clusterName="shop")
    containers: list[Any] = [{"name": "app", "image": image, "memory": 64}]
    made = client.register_task_definition(family="shop", containerDefinitions=containers)
    definition = made["taskDefinition"]["taskDefinitionArn"]
    client.create_service(cluster="shop", serviceName="shop", taskDefinition=definition, desiredCount=0)
    ami = machines.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    machine = machines.run_instances(ImageId=ami, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
    document = json.dumps({"instanceId": machine, "region": REGION, "accountId": ACCOUNT})
    client.register_container_instance(cluster="shop", instanceIdentityDocument=document)
    client.run_task(cluster="shop", taskDefinition=definition, count=1)


def _read_what_a_unit_needs(arn: str) -> None:
    assert list(environment(f"PREFECT_API_AUTH_STRING={arn}#username:password"))


def test_a_worker_may_log_in_push_and_read_secrets(recorded: set[str]) -> None:
    arn = _secret()
    recorded.clear()
    EcrCredentials().credentials_for(REGISTRY)
    read_secret(arn)
    _read_what_a_unit_needs(arn)
    declared = {*PULL.values(), *PUSH.values(), *GIT.values(), *SSM_AGENT.values()}
    assert _allowed("WorkerRole") == recorded | declared


def test_the_control_worker_may_look_at_the_repository_too(recorded: set[str]) -> None:
    arn, image = _secret(), ImageReference.parse(f"{REGISTRY}/team/shop")
    boto3.client("ecr", region_name=REGION).create_repository(repositoryName="team/shop")
    recorded.clear()
    EcrCredentials().credentials_for(REGISTRY)
    prepare(image, Settings())
    read_secret(arn)
    _read_what_a_unit_needs(arn)
    declared = {*PULL.values(), *PUSH.values(), *GIT.values(), *SSM_AGENT.values()}
    assert _allowed("ControlRole", MayCreate=False, MayDelete=False) == recorded | declared


def test_making_repositories_has_to_be_asked_for(recorded: set[str]) -> None:
    image = ImageReference.parse(f"{REGISTRY}/team/shop")
    settings = Settings(registry=RegistrySettings(create_repository=True), ecr=EcrSettings(expiring_tags=("pr-*",)))
    prepare(image, settings)
    without = _allowed("ControlRole", MayCreate=False, MayDelete=False)
    assert _allowed("ControlRole", MayDelete=False) - without == recorded - without


def test_deleting_images_has_to_be_asked_for(recorded: set[str]) -> None:
    image = ImageReference.parse(f"{REGISTRY}/team/shop")
    client = boto3.client("ecr", region_name=REGION)
    client.create_repository(repositoryName=image.repository)
    put_image(client, image.repository, 1, "v1", "latest")
    put_image(client, image.repository, 2)
    _task(f"{image.name}:v1")
    recorded.clear()
    assert images_in_use([EVERY_CLUSTER], image).tags == {"v1"}
    images = EcrImages(image.registry)
    images.delete_tag(image.repository, "latest")
    images.delete_manifests(image.repository, images.untagged(image.repository, pushed_before=_LATER))
    without = _allowed("ControlRole", MayDelete=False)
    assert _allowed("ControlRole") - without == recorded | set(PRUNE.values())


def test_the_receiver_may_read_its_queue_and_its_secrets(recorded: set[str], aws: str, tmp_path: Path) -> None:
    arn = _secret()
    client = boto3.client("sqs", region_name=REGION)
    url = client.create_queue(QueueName="events")["QueueUrl"]
    client.send_message(QueueUrl=url, MessageBody=json.dumps(_push()))
    source = {"kind": "sqs", "name": "aws", "queue_url": url, "region": REGION, "endpoint_url": aws, "wait_s": 1}
    rule = support.rule(sources=["aws"], repositories=["shop"])
    configuration = support.configuration(tmp_path, sources=[source], rules=[rule])
    queue = configuration.sources[0]
    assert isinstance(queue, QueueSource)
    recorded.clear()
    with Outbox(configuration.outbox) as outbox:
        metrics = Metrics()
        QueuePoller(queue, Receiver(configuration, outbox, metrics), metrics).step()
    _read_what_a_unit_needs(arn)
    assert _allowed("ReceiverRole") == recorded | set(SSM_AGENT.values())


def test_the_server_may_read_its_secrets(recorded: set[str]) -> None:
    arn = _secret()
    recorded.clear()
    _read_what_a_unit_needs(arn)
    assert _allowed("ServerRole") == recorded | set(SSM_AGENT.values())


def test_every_call_in_the_code_is_some_role_s_and_is_named_as_what_it_is() -> None:
    """The name that an error gives for a call is a literal, so the code can be asked for all of them."""
    named = {
        action for ring in ("src", "tasks") for path in (REPOSITORY / ring).rglob("*.py") for action in _named(path)
    }
    roles = ("WorkerRole", "ControlRole", "ReceiverRole", "ServerRole")
    allowed = {action for role in roles for action in _allowed(role)}
    declared = {*PULL.values(), *PUSH.values(), *PRUNE.values(), *SSM_AGENT.values()}
    assert allowed - declared == named - NOT_IN_THE_TEMPLATES


def test_no_statement_is_wider_than_it_can_be() -> None:
    # Neither a login nor the agent's channels nor a look at clusters can be narrowed to a resource.
    in_use = _named(REPOSITORY / "src/soci_pipeline/aws/ecs.py")
    anywhere = {"ecr:GetAuthorizationToken", *in_use, *SSM_AGENT.values()}
    for name, role in template("roles.yaml")["Resources"].items():
        properties = role["Properties"]
        policies = [each["PolicyDocument"] for each in properties.get("Policies", [])] or [properties["PolicyDocument"]]
        for statement in (_chosen(each, {}) for policy in policies for each in policy["Statement"]):
            actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
            assert not [action for action in actions if "*" in action], name
            if statement["Resource"] == "*":
                assert set(actions) <= anywhere, name


def _named(path: Path) -> set[str]:
    """The actions that a module gives a name to as it calls them."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    first = [node.args[0] for node in calls if getattr(node.func, "id", None) == "calling"]
    assert all(isinstance(each, ast.Constant) for each in first), path
    return {str(each.value) for each in first if isinstance(each, ast.Constant)}


def _push() -> dict[str, Any]:
    return {
        "id": "01234567-EXAMPLE",
        "detail-type": "CodeCommit Repository State Change",
        "source": "aws.codecommit",
        "account": "123456789012",
        "time": "2026-11-24T03:33:41Z",
        "region": REGION,
        "detail": {
            "event": "referenceUpdated",
            "repositoryName": "shop",
            "referenceType": "branch",
            "referenceName": "main",
            "referenceFullName": "refs/heads/main",
            "commitId": "c" * 40,
            "oldCommitId": "d" * 40,
        },
    }


def test_the_list_of_ecrs_actions_is_what_the_roles_may_do() -> None:
    for role, parts in {
        "WorkerRole": (LOGIN, PULL_ACTIONS, PUSH_ACTIONS),
        "ControlRole": (LOGIN, PULL_ACTIONS, PUSH_ACTIONS, CHECK, CREATE, PRUNE_ACTIONS),
    }.items():
        listed = {f"ecr:{name}" for part in parts for name in part}
        assert {action for action in _allowed(role) if action.startswith("ecr:")} == listed
