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
from tests.support.cloudformation import NOT_EMULATED, ROOT, as_emulated, teach_outputs, template
from tests.support.documentation import SECTIONS_RUN_IN_ORDER, shell_blocks
from tests.support.git_repositories import Repository, repository

SECTIONS = tuple(section for _, section in SECTIONS_RUN_IN_ORDER)
# By their beginnings: what does not run here, and why.
NOT_RUN = {
    "aws ssm start-session": "a session needs a machine with its agent, and a plugin of the CLI",
    "aws autoscaling start-instance-refresh": "unknown to the emulator",
    "aws sqs get-queue-attributes": "the CLI calls the address in the queue's URL, which is AWS's own",
    ".venv/bin/soci-pipeline setup": "needs Prefect: the local stack of tests/real does the same",
    ".venv/bin/prefect --no-prompt deploy": "needs Prefect: the local stack of tests/real does the same",
    ".venv/bin/soci-pipeline publish": "needs workers: tests/real runs it on a local stack",
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
def checkout(tmp_path: Path) -> Repository:
    return repository(tmp_path / "checkout")


@pytest.fixture
def account(aws: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkout: Repository) -> dict[str, str]:
    """An empty account, the templates as the emulator takes them, and the environment of a shell."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    teach_outputs(monkeypatch)
    templates = checkout.path / "deployments" / "cloudformation"
    templates.mkdir(parents=True)
    for name, document in as_emulated().items():
        # JSON is YAML too.
        (templates / name).write_text(json.dumps(document))
    # The emulator serves buckets by path, as the CLI is told here; everything else of the command stays as it is.
    config = tmp_path / "config"
    config.write_text("[default]\ns3 =\n    addressing_style = path\n")
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "AWS_CONFIG_FILE": str(config),
        # By this name alone the emulator takes the address of a packaged template for its own.
        "AWS_ENDPOINT_URL": aws.replace("127.0.0.1", "localhost"),
        "AWS_PAGER": "",
        **{name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
    }


def test_every_command_that_is_not_run_is_on_the_page() -> None:
    commands = [each for section in SECTIONS for each in _commands(section)]
    assert len(commands) > 20
    assert [each for each in NOT_RUN if not any(command.startswith(each) for command in commands)] == []


def test_the_commands_of_the_page_run_in_order(account: dict[str, str], checkout: Repository) -> None:
    commands = [each for section in SECTIONS for each in _commands(section) if _is_run(each)]
    script = "\n".join(["set -euo pipefail", *commands, "declare -p control PREFECT_API_AUTH_STRING"])
    done = subprocess.run(
        ["bash", "-xc", script],
        env=account,
        cwd=checkout.path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Successfully created/updated stack - soci" in done.stdout
    assert f"{REGISTRY}/acme/shop" in done.stdout
    assert f'PREFECT_API_AUTH_STRING="prefect:{"p" * 40}"' in done.stdout
    packaged = (checkout.path / "soci-pipeline.packaged.yaml").read_text()
    assert "TemplateURL: machines.yaml" not in packaged
    bucket = boto3.client("s3").list_objects_v2(Bucket="soci-templates-123456789012")
    assert len(bucket["Contents"]) == 7
    secret = boto3.client("secretsmanager").get_secret_value(SecretId="ApiSecret")["SecretString"]
    assert json.loads(secret)["username"] == "prefect"
    assert json.loads(secret)["password"] != "p" * 40
    assert not (checkout.path / "new-secret.json").exists()


def test_the_parameters_of_step_3_are_those_of_the_template() -> None:
    (command,) = (each for each in _commands(SECTIONS[0]) if each.startswith("aws cloudformation deploy"))
    names = re.findall(r"(\w+)=", command.partition("--parameter-overrides")[2])
    declared = template(ROOT)["Parameters"]
    assert {name for name, each in declared.items() if "Default" not in each} <= set(names) <= set(declared)
