"""The templates as data, and what the root template makes of them: the emulator knows no outputs of nested stacks.

`Root` reckons conditions and the parameters of each nested stack as CloudFormation does, so that they can be deployed
one after the other.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import yaml

from tests.support.aws import ACCOUNT, REGION

FOLDER = Path(__file__).resolve().parents[2] / "deployments" / "cloudformation"
TEMPLATES = tuple(sorted(path.name for path in FOLDER.glob("*.yaml")))
# It knows load balancers' listeners, but none of TCP.
LISTENER = "AWS::ElasticLoadBalancingV2::Listener"
# What the emulator passes over; docs/aws.md lists it, and tests look at it in the templates.
NOT_EMULATED = {
    "AWS::CloudWatch::Alarm",
    "AWS::CodeCommit::Repository",
    "AWS::SecretsManager::Secret",
    "AWS::SQS::QueuePolicy",
    LISTENER,
}


class _Loader(yaml.SafeLoader):
    """Knows the short forms of CloudFormation's functions."""


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
    """One template, with the functions in their long form."""
    document = yaml.load((FOLDER / name).read_text(), Loader=_Loader)
    assert isinstance(document, dict)
    return document


class Root:
    """The root template with some parameters; ``outputs`` of nested stacks are filled in as they are made."""

    def __init__(self, stack: str, given: Mapping[str, str]) -> None:
        self.template = template("soci-pipeline.yaml")
        declared = self.template["Parameters"]
        assert set(given) <= set(declared)
        defaults = {name: str(each["Default"]) for name, each in declared.items() if "Default" in each}
        self.values: dict[str, Any] = defaults | dict(given)
        assert set(self.values) == set(declared)
        self.values |= {"AWS::StackName": stack, "AWS::Region": REGION, "AWS::AccountId": ACCOUNT}
        self.outputs: dict[str, dict[str, str]] = {}

    def stacks(self) -> list[tuple[str, str]]:
        """Logical id and file of the nested stacks that there are, in an order in which each finds what it needs."""
        wanted = {name: each for name, each in self.template["Resources"].items() if self._holds(each)}
        order: list[str] = []
        while len(order) < len(wanted):
            ready = [n for n in wanted if n not in order and self._needs(wanted[n]) & set(wanted) <= set(order)]
            assert ready, "the nested stacks need each other in a circle"
            order += ready
        return [(name, wanted[name]["Properties"]["TemplateURL"]) for name in order]

    def parameters(self, name: str) -> dict[str, str]:
        """The parameters of a nested stack."""
        given = self.template["Resources"][name]["Properties"]["Parameters"]
        return {key: str(self.value(each)) for key, each in given.items()}

    def own_outputs(self) -> dict[str, str]:
        """The outputs of the whole."""
        outputs = self.template["Outputs"]
        return {key: str(self.value(each["Value"])) for key, each in outputs.items() if self._holds(each)}

    def value(self, expression: Any) -> Any:
        """What an expression of the template stands for."""
        if not isinstance(expression, dict):
            return expression
        ((function, argument),) = expression.items()
        match function:
            case "Ref":
                return self.values[argument]
            case "Fn::GetAtt":
                stack, attribute = argument
                return self.outputs[stack][attribute.removeprefix("Outputs.")]
            case "Fn::If":
                return self.value(argument[1] if self._condition(argument[0]) else argument[2])
            case "Fn::Sub":
                text, own = (argument, {}) if isinstance(argument, str) else argument
                known = {key: self.value(each) for key, each in own.items()}
                plain = re.sub(r"\$\{([^!{}]+)\}", lambda found: str((self.values | known)[found[1]]), text)
                return plain.replace("${!", "${")
            case _:
                raise AssertionError(f"{function} is not expected in the root template")

    def _holds(self, part: Mapping[str, Any]) -> bool:
        return "Condition" not in part or self._condition(part["Condition"])

    def _condition(self, name: str) -> bool:
        return self._test(self.template["Conditions"][name])

    def _test(self, expression: Mapping[str, Any]) -> bool:
        ((function, argument),) = expression.items()
        match function:
            case "Fn::Equals":
                return bool(self.value(argument[0]) == self.value(argument[1]))
            case "Fn::Not":
                return not self._test(argument[0])
            case "Fn::Or":
                return any(self._test(each) for each in argument)
            case "Condition":
                return self._condition(argument)
            case _:
                raise AssertionError(f"{function} is not expected in a condition")

    def _needs(self, part: Any) -> set[str]:
        """The nested stacks whose outputs a part names."""
        if isinstance(part, dict):
            if set(part) == {"Fn::GetAtt"}:
                return {part["Fn::GetAtt"][0]}
            return set().union(*(self._needs(each) for each in part.values())) if part else set()
        return set().union(*(self._needs(each) for each in part)) if isinstance(part, list) and part else set()


def make_stack(name: str, document: Mapping[str, Any], parameters: Mapping[str, str]) -> dict[str, str]:
    """Make one stack in the emulator; returns its outputs."""
    client = boto3.client("cloudformation", region_name=REGION)
    client.create_stack(
        StackName=name,
        TemplateBody=json.dumps(document),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    (made,) = client.describe_stacks(StackName=name)["Stacks"]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    return {each["OutputKey"]: each.get("OutputValue", "") for each in made.get("Outputs", [])}


def deploy(root: Root) -> None:
    """Make all nested stacks of a root in the emulator, each with what the ones before put out."""
    image = boto3.client("ec2", region_name=REGION).describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    for name, file in root.stacks():
        document, given = template(file), root.parameters(name)
        if file == "machines.yaml":
            # The emulator resolves no parameters of SSM inside a launch template.
            given |= {"ImageId": image}
        if file == "server.yaml":
            given |= _with_secrets_made_beforehand(document)
        root.outputs[name] = make_stack(f"soci-{name}", document, given)


def _with_secrets_made_beforehand(document: dict[str, Any]) -> dict[str, str]:
    """Take out of the server's template what the emulator cannot make; returns the secrets as further parameters."""
    del document["Resources"]["Listener"]
    client, made = boto3.client("secretsmanager", region_name=REGION), {}
    for name in ("DatabaseSecret", "ApiSecret"):
        del document["Resources"][name]
        document["Parameters"][name] = {"Type": "String"}
        held = json.dumps({"username": "prefect", "password": "p" * 40})
        made[name] = client.create_secret(Name=name, SecretString=held)["ARN"]
    return made
