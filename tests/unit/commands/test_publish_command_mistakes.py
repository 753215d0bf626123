"""Ten mistakes in calls of `publish` that can be known on this machine, before anything slow is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from tests.support.git_repositories import repository

IMAGE = "127.0.0.1:9/demo/site"

MISTAKES: dict[str, tuple[list[str], int, str, str]] = {
    "unknown option": (["app", IMAGE, "--tagg", "v1"], ExitCode.USAGE, "No such option '--tagg'", "Did you mean"),
    "tag with a slash": (
        ["app", IMAGE, "--tag", "feature/x"],
        ExitCode.INVALID_INPUT,
        "--tag: not a valid tag: 'feature/x'",
        "Use 'feature-x'",
    ),
    "version without a git tag": (
        ["app", IMAGE, "--tag", "{version}"],
        ExitCode.INVALID_INPUT,
        "{version} requires a git tag on the commit (for example v1.2.0)",
        "next: Tag the commit (`git tag v1.2.0`)",
    ),
    "unknown platform": (
        ["app", IMAGE, "--platform", "linux/arm65"],
        ExitCode.INVALID_INPUT,
        "--platform 'linux/arm65': unknown architecture 'arm65'",
        "next: This machine can build ",
    ),
    "missing source": (
        ["nowhere", IMAGE],
        ExitCode.INVALID_INPUT,
        "SOURCE 'nowhere' does not exist",
        "next: Use a folder on this machine",
    ),
    "no Dockerfile": (
        ["empty", IMAGE, "--tag", "v1"],
        ExitCode.INVALID_INPUT,
        "empty has no Dockerfile",
        "next: --context must be a folder in SOURCE",
    ),
    "invalid file of parameters": (
        ["app", IMAGE, "--params", "invalid.yaml"],
        ExitCode.INVALID_INPUT,
        "--params invalid.yaml is not valid JSON or YAML (line 2)",
        "next: Correct the file.",
    ),
    "unknown parameter in the file": (
        ["app", IMAGE, "--params", "unknown.yaml"],
        ExitCode.INVALID_INPUT,
        "--params unknown.yaml: there is no parameter 'tagz'",
        "next: Did you mean `tags`?",
    ),
    "invalid image": (
        ["app", "127.0.0.1:9/UPPER/site"],
        ExitCode.INVALID_INPUT,
        "IMAGE '127.0.0.1:9/UPPER/site': not a valid repository name: 'UPPER/site'; names must be lower case",
        "next: Use registry/repository",
    ),
    "local and remote": (
        ["app", IMAGE, "--local", "--remote"],
        ExitCode.INVALID_INPUT,
        "--local and --remote exclude each other",
        "next: Use one of them",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mistakes")
    repository(made / "app", {"Dockerfile": "FROM scratch\n"})
    repository(made / "empty", {"README": "x"})
    (made / "invalid.yaml").write_text("tags: [\n")
    (made / "unknown.yaml").write_text("tagz: [v1]\n")
    return made


@pytest.mark.parametrize(("arguments", "status", "cause", "next_step"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_answered_by_its_cause_and_the_next_step(
    arguments: list[str],
    status: int,
    cause: str,
    next_step: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "no-prefect"))
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(tmp_path / "work"))
    try:
        ended: str | int | None = main(["publish", *arguments])
    except SystemExit as wrong_usage:
        ended = wrong_usage.code
    said = capsys.readouterr()
    assert ended == status
    assert cause in said.err
    assert next_step in said.err
    assert said.out == ""


def test_parameters_are_checked_without_importing_http_engines_or_aws() -> None:
    heavy = "{'httpx', 'docker', 'requests', 'boto3', 'rich', 'prefect'}"
    code = f"import sys, soci_pipeline.cli, soci_pipeline.commands.publish; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
