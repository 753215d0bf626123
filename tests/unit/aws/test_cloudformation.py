"""The template: sound by cfn-lint, least in its rights, and alive in the emulator from an event to the queue."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws

from soci_pipeline.aws.repository import ensure_repository

TEMPLATE = Path(__file__).resolve().parents[3] / "deployments" / "cloudformation" / "soci-pipeline.yaml"
REGION = "eu-west-1"
# The emulator passes over what it does not know; the queue's policy is looked at in the template itself.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse AWS..SQS..QueuePolicy:UserWarning")


class _Loader(yaml.SafeLoader):
    """Knows the short forms of CloudFormation's functions."""


def _function(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        return {name: value.split(".") if suffix == "GetAtt" else value}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _function)


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    document = yaml.load(TEMPLATE.read_text(), Loader=_Loader)
    assert isinstance(document, dict)
    return document


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLEEXAMPLE00")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    with mock_aws():
        yield


def _stack(**parameters: str) -> dict[str, str]:
    """Make the stack; returns its outputs."""
    client = boto3.client("cloudformation", region_name=REGION)
    given = {"ImageRepositoryName": "team/shop", "SourceRepositoryName": "shop"} | parameters
    client.create_stack(
        StackName="soci",
        TemplateBody=TEMPLATE.read_text(),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    (made,) = client.describe_stacks(StackName="soci")["Stacks"]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    return {each["OutputKey"]: each["OutputValue"] for each in made["Outputs"]}


def _statements(role: dict[str, Any]) -> list[dict[str, Any]]:
    policies = role["Properties"]["Policies"]
    statements = [each for policy in policies for each in policy["PolicyDocument"]["Statement"]]
    return [each["Fn::If"][1] if "Fn::If" in each else each for each in statements]


def _actions(statement: dict[str, Any]) -> list[str]:
    actions = statement["Action"]
    return [actions] if isinstance(actions, str) else actions


def test_cfn_lint_finds_nothing() -> None:
    cfnlint = pytest.importorskip("cfnlint.api")
    config = pytest.importorskip("cfnlint.config")
    matches = cfnlint.lint(TEMPLATE.read_text(), config=config.ManualArgs(regions=["eu-west-1", "us-east-1"]))
    assert [str(match) for match in matches] == []


def test_no_role_has_a_wildcard_but_for_the_login(template: dict[str, Any]) -> None:
    for name in ("WorkerRole", "ControlRole", "ReceiverRole"):
        for statement in _statements(template["Resources"][name]):
            actions = _actions(statement)
            assert not [action for action in actions if "*" in action], name
            if statement["Resource"] == "*":
                assert actions == ["ecr:GetAuthorizationToken"], name


def test_each_role_can_do_what_it_is_for_and_no_more(template: dict[str, Any]) -> None:
    def actions(name: str) -> set[str]:
        return {action for each in _statements(template["Resources"][name]) for action in _actions(each)}

    assert {"ecr:PutImage", "ecr:UploadLayerPart", "ecr:BatchGetImage"} <= actions("WorkerRole")
    assert not {each for each in actions("WorkerRole") if "Delete" in each or each.startswith("sqs:")}
    assert {"ecr:PutImage", "ecr:GetDownloadUrlForLayer", "ecr:DescribeRepositories"} <= actions("ControlRole")
    assert {each.split(":")[0] for each in actions("ReceiverRole")} == {"sqs", "secretsmanager"}
    assert "sqs:SendMessage" not in actions("ReceiverRole")


def test_deleting_images_has_to_be_asked_for(template: dict[str, Any]) -> None:
    statements = template["Resources"]["ControlRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    deleting = [each for each in statements if "BatchDeleteImage" in json.dumps(each)]
    assert [each["Fn::If"][0] for each in deleting] == ["MayDelete"]


def test_no_lifecycle_policy_can_take_an_untagged_child_away(template: dict[str, Any]) -> None:
    repository = template["Resources"]["ImageRepository"]
    assert "LifecyclePolicy" not in repository["Properties"]
    assert repository["DeletionPolicy"] == "Retain"


def test_the_stack_comes_up_with_its_repository_queue_and_roles(emulated: None) -> None:
    outputs = _stack()
    assert outputs["ImageRepositoryUri"] == f"123456789012.dkr.ecr.{REGION}.amazonaws.com/team/shop"
    assert outputs["SourceCloneUrl"] == f"https://git-codecommit.{REGION}.amazonaws.com/v1/repos/shop"
    queue = boto3.client("sqs", region_name=REGION)
    attributes = queue.get_queue_attributes(QueueUrl=outputs["EventQueueUrl"], AttributeNames=["All"])["Attributes"]
    assert json.loads(attributes["RedrivePolicy"])["maxReceiveCount"] in (5, "5")
    rules = boto3.client("events", region_name=REGION).list_rules()["Rules"]
    assert [each["Name"] for each in rules] == ["soci-source"]


def test_only_the_rules_of_the_stack_may_write_to_the_queue(template: dict[str, Any]) -> None:
    resources = template["Resources"]
    allow, deny = resources["EventQueuePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    arns = [each["Fn::Sub"] for each in allow["Condition"]["ArnEquals"]["aws:SourceArn"]]
    names = [resources[rule]["Properties"]["Name"]["Fn::Sub"] for rule in ("SourceRule", "ImageRule")]
    assert [arn.rpartition("rule/")[2] for arn in arns] == names
    assert (allow["Principal"], allow["Action"]) == ({"Service": "events.amazonaws.com"}, "sqs:SendMessage")
    assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


@pytest.mark.parametrize("mutability", ["MUTABLE", "IMMUTABLE"])
def test_the_rule_for_tags_is_the_one_that_the_pipeline_reads(emulated: None, mutability: str) -> None:
    _stack(TagMutability=mutability)
    rule = ensure_repository(f"123456789012.dkr.ecr.{REGION}.amazonaws.com", "team/shop").mutability
    assert rule.allows_moving("v1") is (mutability == "MUTABLE")


@pytest.mark.parametrize(
    ("source", "kind", "detail", "resources", "arrives"),
    [
        ("aws.codecommit", "CodeCommit Repository State Change", {"referenceName": "main"}, ["shop"], True),
        ("aws.codecommit", "CodeCommit Repository State Change", {"referenceName": "other"}, ["shop"], False),
        ("aws.codecommit", "CodeCommit Repository State Change", {"referenceName": "main"}, ["else"], False),
        ("aws.ecr", "ECR Image Action", {}, [], True),
        ("aws.ecr", "ECR Image Action", {"action-type": "DELETE"}, [], False),
        ("aws.ecr", "ECR Image Action", {"repository-name": "team/else"}, [], False),
    ],
)
def test_the_rules_let_the_right_events_into_the_queue(
    emulated: None, source: str, kind: str, detail: dict[str, str], resources: list[str], arrives: bool
) -> None:
    outputs = _stack(IndexPushedImages="true")
    base = (
        {"event": "referenceUpdated", "referenceType": "branch"}
        if source == "aws.codecommit"
        else {"action-type": "PUSH", "result": "SUCCESS", "repository-name": "team/shop"}
    )
    entry = {
        "Source": source,
        "DetailType": kind,
        "Detail": json.dumps(base | detail),
        "Resources": [f"arn:aws:codecommit:{REGION}:123456789012:{name}" for name in resources],
    }
    boto3.client("events", region_name=REGION).put_events(Entries=[entry])
    queue = boto3.client("sqs", region_name=REGION)
    answer = queue.receive_message(QueueUrl=outputs["EventQueueUrl"], WaitTimeSeconds=0)
    assert bool(answer.get("Messages")) is arrives
