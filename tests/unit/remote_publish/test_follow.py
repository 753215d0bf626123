"""The exit status of a failed publication through Prefect: that of its cause, as the states of its runs name it."""

import json
from typing import Any
from uuid import UUID

import pytest

from soci_pipeline.cli import _report
from soci_pipeline.errors import ExitCode, StackError, exit_code_of
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.runs import ChildRun, RunState
from soci_pipeline.remote_publish.follow import RunFailed, exit_code_of_run, follow
from tests.support.prefect_answers import answering

ALL_FAILED = "linux/amd64: the build failed\nNothing was published."


def _branch(platform: str, kind: str, message: str) -> ChildRun:
    return ChildRun("0", "a branch", (f"platform:{platform}",), kind.title(), kind, message)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("TagConflict: latest has a newer commit\n  next: Choose another tag.", ExitCode.TAG_CONFLICT),
        ("Flow run encountered an exception: SourceError: no such ref", ExitCode.SOURCE),
        ("RegistryError: denied", ExitCode.REGISTRY_REFUSED),
        ("DockerfileMissing: there is none", ExitCode.INVALID_INPUT),
        ("ZeroDivisionError: division by zero", ExitCode.BRANCH_FAILED),
        ("", ExitCode.BRANCH_FAILED),
    ],
)
def test_the_cause_that_a_failed_run_names_is_the_exit_status(message: str, status: ExitCode) -> None:
    assert exit_code_of_run(RunState("FAILED", message), []) == status


def test_branches_that_failed_for_one_cause_have_its_exit_status() -> None:
    failed = [_branch(each, "FAILED", "BuildFailed: no") for each in ("linux/amd64", "linux/arm64")]
    done = _branch("linux/riscv64", "COMPLETED", "")
    assert exit_code_of_run(RunState("FAILED", ALL_FAILED), [*failed, done]) == ExitCode.BUILD_FAILED


def test_branches_that_failed_for_different_causes_have_a_status_of_their_own() -> None:
    branches = [
        _branch("linux/amd64", "FAILED", "BuildFailed: no"),
        _branch("linux/arm64", "CANCELLED", "NoWorker: no worker polls soci-arm64"),
    ]
    assert exit_code_of_run(RunState("FAILED", ALL_FAILED), branches) == ExitCode.BRANCH_FAILED
    assert exit_code_of_run(RunState("FAILED", ALL_FAILED), branches[1:]) == ExitCode.NO_WORKER


def test_a_branch_that_was_started_once_more_counts_with_its_last_run() -> None:
    branches = [_branch("linux/amd64", "CRASHED", "gone"), _branch("linux/amd64", "FAILED", "DiskFull: full")]
    assert exit_code_of_run(RunState("FAILED", ALL_FAILED), branches) == ExitCode.DISK_FULL


def test_a_branch_without_a_named_cause_leaves_the_status_open() -> None:
    branches = [_branch("linux/amd64", "CRASHED", "gone"), _branch("linux/arm64", "FAILED", "DiskFull: full")]
    assert exit_code_of_run(RunState("FAILED", ALL_FAILED), branches) == ExitCode.BRANCH_FAILED


@pytest.mark.parametrize("name", ["", "Exception", "KeyError", "ExitCode"])
def test_only_errors_of_the_library_have_an_exit_status(name: str) -> None:
    assert exit_code_of(name) is None


def test_a_failed_run_says_the_cause_then_the_next_step_then_the_page_of_the_branch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, child = str(UUID(int=1)), str(UUID(int=2))
    message = "BranchFailed: linux/arm64: the build failed\n  next: Fix the Dockerfile."
    failed = {
        "id": child,
        "name": "b",
        "tags": ["platform:linux/arm64"],
        "state_type": "FAILED",
        "state_name": "Failed",
    }
    answers: dict[str, Any] = {f"/flow_runs/{run}": {"state_type": "FAILED", "state": {"message": message}}}
    answers |= {"/flow_runs/filter": [failed]}
    with answering(answers) as (url, _), PrefectApi(url) as api, pytest.raises(RunFailed) as caught:
        follow(api, run, lambda id_: f"http://ui/{id_}")
    lines = ["linux/arm64: the build failed", "  next: Fix the Dockerfile.", f"  linux/arm64: http://ui/{child}"]
    assert str(caught.value).splitlines() == lines
    _report(caught.value, "soci-pipeline", path=None, as_json=True)
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        f"soci-pipeline: {lines[0]}",
        *lines[1:],
        "  more: soci-pipeline explain RunFailed",
    ]
    assert json.loads(said.out)["advice"] == "Fix the Dockerfile."


@pytest.mark.parametrize(
    ("artifacts", "said"),
    [
        ([], "completed without a record of its result: http://ui/"),
        ([{"data": '{"index": 1}', "created": "1"}], r"http://ui/\S+ has [0-9]+ unexpected fields"),
    ],
)
def test_a_completed_run_of_another_version_is_named_with_its_page(artifacts: list[Any], said: str) -> None:
    run = str(UUID(int=1))
    answers: dict[str, Any] = {f"/flow_runs/{run}": {"state_type": "COMPLETED", "state": {"message": ""}}}
    answers |= {"/flow_runs/filter": [], "/artifacts/filter": artifacts}
    with answering(answers) as (url, _), PrefectApi(url) as api, pytest.raises(StackError, match=said):
        follow(api, run, lambda id_: f"http://ui/{id_}")
