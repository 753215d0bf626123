"""The operations page: its commands run as they stand, in order, against the emulated services, as far as those go."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from tests.support.aws import REGION, REGISTRY
from tests.support.cloudformation import NOT_EMULATED, Root, deploy, make_stack
from tests.support.documentation import REPOSITORY, SECTIONS_RUN_IN_ORDER, shell_blocks

SECTIONS = tuple(section for _, section in SECTIONS_RUN_IN_ORDER)
# By their beginnings: what does not run here, and why.
NOT_RUN = {
    "aws cloudformation deploy": "the emulator gives no outputs of nested stacks; the fixture deploys them one by one",
    "aws ssm start-session": "a session needs a machine with its agent, and a plugin of the CLI",
    "aws autoscaling start-instance-refresh": "unknown to the emulator",
    "aws sqs get-queue-attributes": "the CLI calls the address in the queue's URL, which is AWS's own",
    ".venv/bin/soci-pipeline setup": "needs Prefect: the local stack of tests/real does the same",
    ".venv/bin/prefect --no-prompt deploy": "needs Prefect: the local stack of tests/real does the same",
    ".venv/bin/prefect deployment run": "needs workers: tests/real runs it on a local stack",
    "aws ecr describe-images": "needs the image of the step before",
    ".venv/bin/soci-pipeline verify": "needs the image of the step before",
}
pytestmark = pytest.mark.filterwarnings(
    *(f"ignore:Tried to parse {each.replace('::', '..')}:UserWarning" for each in sorted(NOT_EMULATED))
)


def _commands(section: str) -> list[str]:
    """The lines of the section's shell blocks."""
    shown = (block for block in shell_blocks() if (block.document, block.section) in SECTIONS_RUN_IN_ORDER)
    lines = (line for block in shown if block.section == section for line in block.text.splitlines())
    return [line.strip() for line in lines if line.strip()]


def _is_run(command: str) -> bool:
    return not command.startswith(tuple(NOT_RUN))


@pytest.fixture
def account(aws: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """An account in which step 3 has ended, and the environment of a shell that finds it."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    given = {
        "ImageRepositoryName": "acme/shop",
        "SourceRepositoryName": "shop",
        "PipelineRepository": "https://git.example.com/soci-pipeline.git",
        "PipelineCommit": "c" * 40,
        "TagMutability": "IMMUTABLE",
    }
    root = Root("soci", given)
    deploy(root)
    outputs = {name: {"Value": value} for name, value in root.own_outputs().items()}
    make_stack("soci", {"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}, "Outputs": outputs}, {})
    # The emulator serves buckets by path, as the CLI is told here; everything else of the command stays as it is.
    config = tmp_path / "config"
    config.write_text("[default]\ns3 =\n    addressing_style = path\n")
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "AWS_CONFIG_FILE": str(config),
        "AWS_ENDPOINT_URL": aws,
        "AWS_PAGER": "",
        **{name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
    }


def test_every_command_that_is_not_run_is_on_the_page() -> None:
    commands = [each for section in SECTIONS for each in _commands(section)]
    assert len(commands) > 20
    assert [each for each in NOT_RUN if not any(command.startswith(each) for command in commands)] == []


def test_the_commands_of_the_page_run_in_order(account: dict[str, str], tmp_path: Path) -> None:
    commands = [each for section in SECTIONS for each in _commands(section) if _is_run(each)]
    (tmp_path / "deployments").symlink_to(REPOSITORY / "deployments")
    script = "\n".join(["set -euo pipefail", *commands, "declare -p control PREFECT_API_AUTH_STRING"])
    done = subprocess.run(
        ["bash", "-xc", script], env=account, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{REGISTRY}/acme/shop" in done.stdout
    assert f'PREFECT_API_AUTH_STRING="prefect:{"p" * 40}"' in done.stdout
    packaged = (tmp_path / "soci-pipeline.packaged.yaml").read_text()
    assert "TemplateURL: machines.yaml" not in packaged
    bucket = boto3.client("s3").list_objects_v2(Bucket="soci-templates-123456789012")
    assert len(bucket["Contents"]) == 6
    secret = boto3.client("secretsmanager").get_secret_value(SecretId="ApiSecret")["SecretString"]
    assert json.loads(secret)["username"] == "prefect"
    assert json.loads(secret)["password"] != "p" * 40
    assert not (tmp_path / "new-secret.json").exists()


def test_the_parameters_of_step_3_are_those_of_the_template() -> None:
    (command,) = (each for each in _commands(SECTIONS[0]) if each.startswith("aws cloudformation deploy"))
    names = re.findall(r"(\w+)=", command.partition("--parameter-overrides")[2])
    declared = Root("soci", dict.fromkeys(names, "c" * 40)).template["Parameters"]
    assert {name for name, each in declared.items() if "Default" not in each} <= set(names)
