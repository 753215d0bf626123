"""The templates: sound by cfn-lint, closed and encrypted, and alive in the emulator as the root template joins them."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from cfnlint.api import lint
from cfnlint.config import ManualArgs
from moto import mock_aws

from soci_pipeline.aws.lifecycle import ExpiringTags, lifecycle_policy, rules_for_untagged
from soci_pipeline.aws.repository import ensure_repository
from soci_pipeline.webhook.configuration import load
from tests.support.aws import ACCOUNT, REGION, REGISTRY, give_credentials
from tests.support.cloudformation import (
    FOLDER,
    NOT_EMULATED,
    TEMPLATES,
    Deployed,
    deploy,
    make_stack,
    teach_outputs,
    template,
)

pytestmark = pytest.mark.filterwarnings(
    *(f"ignore:Tried to parse {each.replace('::', '..')}:UserWarning" for each in sorted(NOT_EMULATED))
)
DOCUMENT = FOLDER.parents[1] / "docs" / "aws.md"
COMMIT = "c" * 40
GIVEN = {
    "ImageRepositoryName": "team/shop",
    "SourceRepositoryName": "shop",
    "PipelineRepository": "https://git.example.com/soci-pipeline.git",
    "PipelineCommit": COMMIT,
    "PrefectApiUrl": "https://prefect.example.com/api",
    "PrefectSecretArn": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:prefect-AbCdEf",
}
# Every part, and every resource that a parameter asks for.
EVERYTHING = {
    "PrefectApiUrl": "",
    "PrefectSecretArn": "",
    "CreateSourceRepository": "true",
    "IndexPushedImages": "true",
    "ExpiringTags": "pr-*",
    "AllowRepositoryCreation": "true",
    "AllowRetention": "true",
    "AlarmTopicArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms",
}


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    give_credentials(monkeypatch)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    teach_outputs(monkeypatch)
    with mock_aws():
        yield


def _deploy(**parameters: str) -> Deployed:
    """Make the stack of the root template, and with it all others."""
    return deploy(GIVEN | parameters)


def _user_data(group: str) -> str:
    return base64.b64decode(_launch_template(group)["UserData"]).decode()


def _launch_template(group: str) -> dict[str, Any]:
    (found,) = boto3.client("autoscaling", region_name=REGION).describe_auto_scaling_groups(
        AutoScalingGroupNames=[group]
    )["AutoScalingGroups"]
    wanted = found["MixedInstancesPolicy"]["LaunchTemplate"]["LaunchTemplateSpecification"]["LaunchTemplateId"]
    versions = boto3.client("ec2", region_name=REGION).describe_launch_template_versions(
        LaunchTemplateId=wanted, Versions=["$Latest"]
    )["LaunchTemplateVersions"]
    return dict(versions[0]["LaunchTemplateData"])


@pytest.mark.parametrize("name", TEMPLATES)
def test_cfn_lint_finds_nothing(name: str) -> None:
    # W3002: the root is made for `aws cloudformation package`, which is the step that the operations page gives.
    config = ManualArgs(regions=["eu-west-1", "us-east-1"], ignore_checks=["W3002"])
    assert [str(match) for match in lint((FOLDER / name).read_text(), config=config)] == []


def test_all_of_it_is_made_but_for_what_is_listed_as_not_deployed(emulated: None) -> None:
    made = _deploy(**EVERYTHING)
    files = {each["Properties"]["TemplateURL"] for each in template("soci-pipeline.yaml")["Resources"].values()}
    wanted = {each["Type"] for file in files for each in template(file)["Resources"].values()}
    assert wanted - {kind for part in made.parts.values() for kind in part.types} == NOT_EMULATED
    listed = DOCUMENT.read_text().partition("\n## What was shown without an account\n")[2]
    assert set(re.findall("`(AWS::[A-Za-z0-9:]+)`", listed)) == NOT_EMULATED
    # What is made, and passed over in it.
    with pytest.raises(ClientError, match="LifecyclePolicyNotFoundException"):
        boto3.client("ecr", region_name=REGION).get_lifecycle_policy(repositoryName="team/shop")


def test_no_machine_and_no_network_takes_a_connection_from_outside() -> None:
    for name in TEMPLATES:
        for logical, each in template(name)["Resources"].items():
            rules = each.get("Properties", {}).get("SecurityGroupIngress", [])
            if each["Type"] == "AWS::EC2::SecurityGroupIngress":
                rules = [each["Properties"]]
            assert [rule for rule in rules if "CidrIp" in rule or "CidrIpv6" in rule] == [], logical
    assert "SecurityGroupIngress" not in template("network.yaml")["Resources"]["MachinesSecurityGroup"]["Properties"]


def test_what_holds_data_is_encrypted_and_outlives_its_stack() -> None:
    database = template("server.yaml")["Resources"]["Database"]
    assert database["Properties"]["StorageEncrypted"] is True
    assert database["Properties"]["PubliclyAccessible"] is False
    assert database["DeletionPolicy"] == "Snapshot"
    repository = template("repository.yaml")["Resources"]["ImageRepository"]
    assert repository["DeletionPolicy"] == "Retain"
    for each in template("triggers.yaml")["Resources"].values():
        if each["Type"] == "AWS::SQS::Queue":
            assert each["Properties"]["SqsManagedSseEnabled"] is True


def test_no_password_is_written_into_a_template() -> None:
    database = template("server.yaml")["Resources"]["Database"]["Properties"]
    assert database["MasterUserPassword"]["Fn::Sub"].startswith("{{resolve:secretsmanager:${DatabaseSecret}")
    for name in TEMPLATES:
        declared = template(name)["Parameters"]
        assert [each for each in declared if re.search("(?i)password|token|key$", each)] == []


def test_the_parts_of_the_root_take_exactly_what_it_hands_them() -> None:
    for logical, each in template("soci-pipeline.yaml")["Resources"].items():
        declared = template(each["Properties"]["TemplateURL"])["Parameters"]
        given = set(each["Properties"]["Parameters"])
        assert given <= set(declared), logical
        assert {name for name, fields in declared.items() if "Default" not in fields} <= given, logical


def test_only_the_rules_of_the_stack_may_write_to_the_queue() -> None:
    resources = template("triggers.yaml")["Resources"]
    allow, deny = resources["EventQueuePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    arns = [each["Fn::Sub"] for each in allow["Condition"]["ArnEquals"]["aws:SourceArn"]]
    names = [resources[rule]["Properties"]["Name"]["Fn::Sub"] for rule in ("SourceRule", "ImageRule")]
    assert [arn.rpartition("rule/")[2] for arn in arns] == names
    assert (allow["Principal"], allow["Action"]) == ({"Service": "events.amazonaws.com"}, "sqs:SendMessage")
    assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_the_whole_comes_up_and_its_parts_are_there(emulated: None) -> None:
    made = _deploy()
    outputs = made.outputs
    assert outputs["ImageRepositoryUri"] == f"{REGISTRY}/team/shop"
    assert outputs["Source"] == f"codecommit::{REGION}://shop"
    groups = boto3.client("autoscaling", region_name=REGION).describe_auto_scaling_groups()["AutoScalingGroups"]
    assert {each["AutoScalingGroupName"]: (each["MinSize"], each["MaxSize"]) for each in groups} == {
        "soci-soci-amd64": (1, 1),
        "soci-soci-arm64": (1, 1),
        "soci-soci-control": (1, 1),
        "soci-soci-receiver": (1, 1),
    }
    queue = boto3.client("sqs", region_name=REGION)
    attributes = queue.get_queue_attributes(QueueUrl=outputs["EventQueueUrl"], AttributeNames=["All"])["Attributes"]
    assert json.loads(attributes["RedrivePolicy"])["maxReceiveCount"] in (5, "5")
    rules = boto3.client("events", region_name=REGION).list_rules()["Rules"]
    assert [each["Name"] for each in rules] == ["soci-source"]
    _machines_are_closed("soci-soci-amd64")
    _user_data_starts_the_pinned_pipeline_and_holds_no_secret()
    _receiver_is_configured(made)


def _machines_are_closed(group: str) -> None:
    data = _launch_template(group)
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    (found,) = boto3.client("ec2", region_name=REGION).describe_security_groups(GroupIds=data["SecurityGroupIds"])[
        "SecurityGroups"
    ]
    assert found["IpPermissions"] == []


def _user_data_starts_the_pinned_pipeline_and_holds_no_secret() -> None:
    script = _user_data("soci-soci-arm64")
    assert f"git checkout --quiet {COMMIT}\nexec deployments/machine/set-up soci-worker@soci-arm64\n" in script
    assert f"\nPREFECT_API_URL={GIVEN['PrefectApiUrl']}\n" in script
    assert f"\nPREFECT_API_KEY={GIVEN['PrefectSecretArn']}\n" in script
    assert "${" not in script


def _receiver_is_configured(made: Deployed) -> None:
    document = yaml.safe_load(made.parts["Receiver"].parameters["WebhookConfiguration"])
    assert document["sources"][0]["queue_url"] == made.parts["Triggers"].outputs["EventQueueUrl"]
    assert document["prefect"]["api_key"] == {"env": "PREFECT_API_KEY"}
    assert document["rules"][0]["parameters"]["source"] == "${clone_url}"


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_one_parameter_switches_to_a_single_architecture(
    emulated: None, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _deploy(Architectures=architecture)
    workers = {name for name in made.parts if name.endswith("Workers")}
    assert workers == {f"{architecture.title()}Workers"}
    # The receiver takes what the root wrote.
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_0123456789abcdef")
    path = tmp_path / "webhook.yaml"
    path.write_text(made.parts["Receiver"].parameters["WebhookConfiguration"])
    rule = load(path).rules[0]
    assert rule.parameters["platforms"] == [f"linux/{architecture}"]
    assert rule.parameters["image"] == f"{REGISTRY}/team/shop"


def test_without_a_prefect_server_one_is_made_and_everybody_finds_it(emulated: None) -> None:
    made = _deploy(PrefectApiUrl="", PrefectSecretArn="")
    outputs = made.outputs
    (database,) = boto3.client("rds", region_name=REGION).describe_db_instances()["DBInstances"]
    assert (database["Engine"], database["StorageEncrypted"]) == ("postgres", True)
    (balancer,) = boto3.client("elbv2", region_name=REGION).describe_load_balancers()["LoadBalancers"]
    assert balancer["Scheme"] == "internal"
    assert outputs["PrefectApiUrl"] == f"http://{balancer['DNSName']}:4200/api"
    server = _user_data("soci-soci-server")
    assert f"\nPREFECT_SERVER_DATABASE_HOST={database['Endpoint']['Address']}\n" in server
    assert "\nPREFECT_SERVER_DATABASE_PASSWORD=" in server
    for name in ("control", "amd64", "arm64", "receiver"):
        script = _user_data(f"soci-soci-{name}")
        assert f"\nPREFECT_API_URL={outputs['PrefectApiUrl']}\n" in script
        assert f"\nPREFECT_API_AUTH_STRING={outputs['PrefectApiSecretArn']}#username:password\n" in script


@pytest.mark.parametrize(
    ("mutability", "moving"),
    [("MUTABLE", {"v1", "latest"}), ("IMMUTABLE", set()), ("IMMUTABLE_WITH_EXCLUSION", {"latest"})],
)
def test_the_rule_for_tags_is_the_one_that_the_pipeline_reads(
    emulated: None, mutability: str, moving: set[str]
) -> None:
    given = {"ImageRepositoryName": "team/shop", "TagMutability": mutability}
    make_stack("repository", template("repository.yaml"), given)
    found = ensure_repository(REGISTRY, "team/shop")
    assert {tag for tag in ("v1", "latest") if found.mutability.allows_moving(tag)} == moving


def test_the_lifecycle_is_the_one_that_the_library_writes_and_takes_no_parts() -> None:
    # The emulator leaves the policy of a template out.
    (condition, policy, otherwise) = template("repository.yaml")["Resources"]["ImageRepository"]["Properties"][
        "LifecyclePolicy"
    ]["Fn::If"]
    assert (condition, otherwise) == ("Expires", {"Ref": "AWS::NoValue"})
    text = (
        policy["LifecyclePolicyText"]["Fn::Sub"].replace("${ExpiringTags}", "pr-*").replace("${ExpireAfterDays}", "7")
    )
    assert json.loads(text) == json.loads(lifecycle_policy(ExpiringTags(("pr-*",), 7)))
    assert rules_for_untagged(text) == []


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
    given = {
        "Name": "soci",
        "SourceRepositoryArn": f"arn:aws:codecommit:{REGION}:{ACCOUNT}:shop",
        "ImageRepositoryName": "team/shop",
        "IndexPushedImages": "true",
    }
    outputs = make_stack("triggers", template("triggers.yaml"), given)
    base = (
        {"event": "referenceUpdated", "referenceType": "branch"}
        if source == "aws.codecommit"
        else {"action-type": "PUSH", "result": "SUCCESS", "repository-name": "team/shop"}
    )
    entry = {
        "Source": source,
        "DetailType": kind,
        "Detail": json.dumps(base | detail),
        "Resources": [f"arn:aws:codecommit:{REGION}:{ACCOUNT}:{name}" for name in resources],
    }
    boto3.client("events", region_name=REGION).put_events(Entries=[entry])
    queue = boto3.client("sqs", region_name=REGION)
    answer = queue.receive_message(QueueUrl=outputs["EventQueueUrl"], WaitTimeSeconds=0)
    assert bool(answer.get("Messages")) is arrives
