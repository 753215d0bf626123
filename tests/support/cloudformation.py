"""The templates as data, and the root template's stack in the emulator with all nested stacks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto.cloudformation.models import ChangeSet, Stack

from tests.support.aws import REGION

FOLDER = Path(__file__).resolve().parents[2] / "deployments" / "cloudformation"
TEMPLATES = tuple(sorted(path.name for path in FOLDER.glob("*.yaml")))
ROOT = "soci-pipeline.yaml"
_BUCKET = "templates"
_BUCKET_URL = f"https://{_BUCKET}.s3.{REGION}.amazonaws.com/"
# The emulator supports listeners of load balancers, but not of TCP.
LISTENER = "AWS::ElasticLoadBalancingV2::Listener"
SECRET = "AWS::SecretsManager::Secret"
# What the emulator ignores; docs/aws.md lists it, and tests check it in the templates.
NOT_EMULATED = {
    "AWS::CloudWatch::Alarm",
    "AWS::CodeCommit::Repository",
    SECRET,
    "AWS::SQS::QueuePolicy",
    LISTENER,
}


class _Loader(yaml.SafeLoader):
    """Supports the short forms of CloudFormation's functions."""


def _function(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        return {name: value.split(".", 1) if suffix == "GetAtt" else value}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _function)


def template(name: str) -> dict[str, Any]:
    """Load one template, with the functions in their long form."""
    document = yaml.load((FOLDER / name).read_text(), Loader=_Loader)
    assert isinstance(document, dict)
    return document


@dataclass(frozen=True)
class Part:
    """A nested stack: the parameters from the root, its outputs, and the types of its resources."""

    parameters: Mapping[str, str]
    outputs: Mapping[str, str]
    types: frozenset[str]


@dataclass(frozen=True)
class Deployed:
    """The root template's stack; its parts by logical id."""

    outputs: Mapping[str, str]
    parts: Mapping[str, Part]


def deploy(parameters: Mapping[str, str], name: str = "soci") -> Deployed:
    """Create the root template's stack in the emulator with all nested ones; `teach_outputs` must be called first."""
    store = boto3.client("s3", region_name=REGION)
    store.create_bucket(Bucket=_BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    parts = as_emulated()
    root = parts[ROOT]
    for each in root["Resources"].values():
        each["Properties"]["TemplateURL"] = _BUCKET_URL + each["Properties"]["TemplateURL"]
    for file, document in parts.items():
        store.put_object(Bucket=_BUCKET, Key=file, Body=json.dumps(document).encode())
    return Deployed(make_stack(name, root, parameters), _parts(name))


def _parts(stack: str) -> dict[str, Part]:
    client = boto3.client("cloudformation", region_name=REGION)
    found = {}
    for nested in client.list_stack_resources(StackName=stack)["StackResourceSummaries"]:
        name = nested["PhysicalResourceId"]
        if not nested["ResourceType"]:
            # A condition excludes it, or the emulator does not support it.
            continue
        (made,) = client.describe_stacks(StackName=name)["Stacks"]
        given = {each["ParameterKey"]: each["ParameterValue"] for each in made["Parameters"]}
        resources = client.list_stack_resources(StackName=name)["StackResourceSummaries"]
        types = {each["ResourceType"] for each in resources if each["ResourceType"]}
        found[nested["LogicalResourceId"]] = Part(given, _outputs(made), frozenset(types))
    return found


def make_stack(name: str, document: Mapping[str, Any], parameters: Mapping[str, str]) -> dict[str, str]:
    """Create one stack in the emulator; return its outputs."""
    client = boto3.client("cloudformation", region_name=REGION)
    client.create_stack(
        StackName=name,
        TemplateBody=json.dumps(document),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    (made,) = client.describe_stacks(StackName=name)["Stacks"]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    return _outputs(made)


def _outputs(made: Any) -> dict[str, str]:
    return {each["OutputKey"]: each.get("OutputValue", "") for each in made.get("Outputs", [])}


def teach_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add outputs to the emulator: of nested stacks (``!GetAtt Part.Outputs.Name``), and of change sets."""
    apply = ChangeSet.apply

    def attribute(stack: Stack, name: str) -> str:
        output = stack.output_map[name.removeprefix("Outputs.")]
        assert output is not None, f"{stack.name} has no {name}"
        return output.value

    def apply_with_outputs(change: ChangeSet) -> None:
        apply(change)
        change.stack.template_dict = change.template_dict
        change.stack.output_map = change.stack._create_output_map()

    monkeypatch.setattr(Stack, "get_cfn_attribute", attribute, raising=False)
    monkeypatch.setattr(ChangeSet, "apply", apply_with_outputs)


def as_emulated() -> dict[str, dict[str, Any]]:
    """Return all templates, adapted to the emulator; secrets are created beforehand."""
    parts = {name: template(name) for name in TEMPLATES}
    # The emulator does not resolve SSM parameters in a launch template.
    image = boto3.client("ec2", region_name=REGION).describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    parts["machines.yaml"]["Parameters"]["ImageId"]["Default"] = image
    server = parts["server.yaml"]
    client = boto3.client("secretsmanager", region_name=REGION)
    for name in ("DatabaseSecret", "ApiSecret"):
        held = json.dumps({"username": "prefect", "password": "p" * 40})
        arn = client.create_secret(Name=name, SecretString=held)["ARN"]
        server["Parameters"][name] = {"Type": "String", "Default": arn}
    server["Resources"] = {
        name: each for name, each in server["Resources"].items() if each["Type"] not in (LISTENER, SECRET)
    }
    return parts
