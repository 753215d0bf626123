"""The templates: sound by cfn-lint, closed and encrypted, and alive in the emulator as the root template joins them."""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import yaml
from cfnlint.api import lint
from cfnlint.config import ManualArgs
from moto import mock_aws
from moto.cloudformation.parsing import get_model_map

from soci_pipeline.aws.lifecycle import ExpiringTags, lifecycle_policy, rules_that_take_parts
from soci_pipeline.aws.repository import ensure_repository
from soci_pipeline.webhook.configuration import load
from tests.support.aws import ACCOUNT, REGION, REGISTRY, give_credentials
from tests.support.cloudformation import FOLDER, LISTENER, NOT_EMULATED, TEMPLATES, Root, deploy, make_stack, template

pytestmark = pytest.mark.filterwarnings(
    *(f"ignore:Tried to parse {each.replace('::', '..')}:UserWarning" for each in sorted(NOT_EMULATED))
)
COMMIT = "c" * 40
GIVEN = {
    "ImageRepositoryName": "team/shop",
    "SourceRepositoryName": "shop",
    "PipelineRepository": "https://git.example.com/soci-pipeline.git",
    "PipelineCommit": COMMIT,
    "PrefectApiUrl": "https://prefect.example.com/api",
    "PrefectSecretArn": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:prefect-AbCdEf",
    # The emulator has one rule for tags or the other.
    "TagMutability": "IMMUTABLE",
}


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    give_credentials(monkeypatch)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        yield


def _deploy(**parameters: str) -> Root:
    """Make all stacks of the root template, in its order and with its parameters."""
    root = Root("soci", GIVEN | parameters)
    deploy(root)
    return root


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


def test_every_type_of_resource_is_emulated_or_listed_as_not_deployed() -> None:
    known = set(get_model_map())
    used = {each["Type"] for name in TEMPLATES for each in template(name)["Resources"].values()}
    assert used - known == NOT_EMULATED - {LISTENER}
    listed = (FOLDER.parents[1] / "docs" / "aws.md").read_text()
    assert [each for each in NOT_EMULATED if f"`{each}`" not in listed] == []


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
    root = _deploy()
    outputs = root.own_outputs()
    assert outputs["ImageRepositoryUri"] == f"{REGISTRY}/team/shop"
    assert outputs["Source"] == f"codecommit::{REGION}://shop"
    groups = boto3.client("autoscaling", region_name=REGION).describe_auto_scaling_groups()["AutoScalingGroups"]
    assert {each["AutoScalingGroupName"]: (each["MinSize"], each["MaxSize"]) for each in groups} == {
        "soci-soci-amd64": (0, 4),
        "soci-soci-arm64": (0, 4),
        "soci-soci-control": (1, 1),
        "soci-soci-receiver": (1, 1),
    }
    protected = {each["AutoScalingGroupName"]: each["NewInstancesProtectedFromScaleIn"] for each in groups}
    assert protected["soci-soci-amd64"] is True
    assert protected["soci-soci-control"] is False
    queue = boto3.client("sqs", region_name=REGION)
    attributes = queue.get_queue_attributes(QueueUrl=outputs["EventQueueUrl"], AttributeNames=["All"])["Attributes"]
    assert json.loads(attributes["RedrivePolicy"])["maxReceiveCount"] in (5, "5")
    rules = boto3.client("events", region_name=REGION).list_rules()["Rules"]
    assert [each["Name"] for each in rules] == ["soci-source"]
    _machines_are_closed("soci-soci-amd64")
    _user_data_starts_the_pinned_pipeline_and_holds_no_secret()
    _receiver_is_configured(root)


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
    assert (
        f"git checkout --quiet {COMMIT}\nexec deployments/machine/set-up soci-worker@soci-arm64 soci-agent\n" in script
    )
    assert f"\nPREFECT_API_URL={GIVEN['PrefectApiUrl']}\n" in script
    assert f"\nPREFECT_API_KEY={GIVEN['PrefectSecretArn']}\n" in script
    assert "${" not in script


def _receiver_is_configured(root: Root) -> None:
    document = yaml.safe_load(root.parameters("Receiver")["WebhookConfiguration"])
    assert document["sources"][0]["queue_url"] == root.outputs["Triggers"]["EventQueueUrl"]
    assert document["prefect"]["api_key"] == {"env": "PREFECT_API_KEY"}
    assert document["rules"][0]["parameters"]["source"] == "${clone_url}"


def test_the_receiver_takes_the_configuration_that_the_root_writes(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_0123456789abcdef")
    root = Root("soci", GIVEN | {"Architectures": "arm64"})
    root.outputs = {
        "Triggers": {"EventQueueUrl": f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/events"},
        "Repository": {"ImageRepositoryUri": f"{REGISTRY}/team/shop"},
        "Network": {"SubnetIds": "a,b", "MachinesSecurityGroupId": "c"},
        "Roles": {"ReceiverRoleName": "receiver"},
    }
    path = tmp_path / "webhook.yaml"
    path.write_text(root.parameters("Receiver")["WebhookConfiguration"])
    rule = load(path).rules[0]
    assert rule.parameters["platforms"] == ["linux/arm64"]
    assert rule.parameters["image"] == f"{REGISTRY}/team/shop"


@pytest.mark.parametrize(
    ("architectures", "there"), [("both", {"Amd64", "Arm64"}), ("amd64", {"Amd64"}), ("arm64", {"Arm64"})]
)
def test_one_parameter_switches_to_a_single_architecture(architectures: str, there: set[str]) -> None:
    names = {name for name, _ in Root("soci", GIVEN | {"Architectures": architectures}).stacks()}
    assert {name.removesuffix("Workers") for name in names if name.endswith("Workers")} == there


@pytest.mark.parametrize(
    ("architectures", "expected"),
    [
        ("both", "--group soci-amd64=soci-soci-amd64 --group soci-arm64=soci-soci-arm64"),
        ("arm64", "--group soci-arm64=soci-soci-arm64"),
    ],
)
def test_the_control_machine_scales_the_groups_that_there_are(architectures: str, expected: str) -> None:
    root = Root("soci", GIVEN | {"Architectures": architectures})
    root.outputs = {name: dict.fromkeys(template(file)["Outputs"], "x") for name, file in root.stacks()}
    assert f'\nCAPACITY_ARGUMENTS="{expected}"' in root.parameters("ControlMachine")["Environment"]


def test_without_a_prefect_server_one_is_made_and_everybody_finds_it() -> None:
    root = Root("soci", GIVEN | {"PrefectApiUrl": "", "PrefectSecretArn": ""})
    order = [name for name, _ in root.stacks()]
    assert order.index("Server") < order.index("Roles") < order.index("ServerMachine")
    stand_in = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x"
    root.outputs = {name: dict.fromkeys(template(file)["Outputs"], stand_in) for name, file in root.stacks()}
    for machine in ("ControlMachine", "Amd64Workers", "Arm64Workers", "Receiver"):
        given = root.parameters(machine)
        assert given["Secrets"] == f"PREFECT_API_AUTH_STRING={stand_in}#username:password"
        assert re.search(r"^PREFECT_API_URL=", given["Environment"], re.MULTILINE)
    assert "PREFECT_SERVER_DATABASE_PASSWORD=" in root.parameters("ServerMachine")["Secrets"]


def test_the_server_s_database_and_load_balancer_come_up(emulated: None) -> None:
    root = _deploy(PrefectApiUrl="", PrefectSecretArn="")
    outputs = root.own_outputs()
    (database,) = boto3.client("rds", region_name=REGION).describe_db_instances()["DBInstances"]
    assert (database["Engine"], database["StorageEncrypted"]) == ("postgres", True)
    (balancer,) = boto3.client("elbv2", region_name=REGION).describe_load_balancers()["LoadBalancers"]
    assert balancer["Scheme"] == "internal"
    assert outputs["PrefectApiUrl"] == f"http://{balancer['DNSName']}:4200/api"
    script = _user_data("soci-soci-server")
    assert f"\nPREFECT_SERVER_DATABASE_HOST={database['Endpoint']['Address']}\n" in script
    assert f"\nPREFECT_API_AUTH_STRING={outputs['PrefectApiSecretArn']}#username:password\n" in _user_data(
        "soci-soci-arm64"
    )


@pytest.mark.parametrize("mutability", ["MUTABLE", "IMMUTABLE"])
def test_the_rule_for_tags_is_the_one_that_the_pipeline_reads(emulated: None, mutability: str) -> None:
    given = {"ImageRepositoryName": "team/shop", "TagMutability": mutability}
    make_stack("repository", template("repository.yaml"), given)
    found = ensure_repository(REGISTRY, "team/shop")
    assert found.mutability.allows_moving("v1") is (mutability == "MUTABLE")


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
    assert rules_that_take_parts(text) == []


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
