"""The command `publish` through a real Prefect server; the flow runs' states are set as workers would set them."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local_stack.prefect_server import PrefectServer
from soci_pipeline.cli import main
from soci_pipeline.commands import publish_remote
from soci_pipeline.errors import ExitCode
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import OCI_MANIFEST
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.runs import RESULT
from soci_pipeline.publish.records import PublicationResult
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.remote_publish.readiness import DEPLOYMENT, branch_deployment
from soci_pipeline.soci.index.records import PlatformImage
from tests.support.git_repositories import Repository, repository

PLATFORM = Platform("linux", "riscv64")
CONTROL_POOL, BRANCH_POOL = "publish-command-control", "publish-command-riscv64"
IMAGE = "127.0.0.1:9/demo/site"
SOURCE = "https://git.example.com/shop/web.git"


@dataclass
class Server:
    """The run's Prefect server, as its workers speak to it."""

    api: PrefectApi
    capture: pytest.CaptureFixture[str]
    log: pytest.LogCaptureFixture

    def deploy(self, name: str, pool: str) -> str:
        flow, _, own = name.partition("/")
        flow_id = self.api.ask("POST", "/flows/", {"name": flow})["id"]
        body = {"name": own, "flow_id": flow_id, "work_pool_name": pool, "enforce_parameter_schema": False}
        return str(self.api.ask("POST", "/deployments/", body)["id"])

    def beat(self, pool: str) -> None:
        """Let a worker of a pool be online."""
        self.api.ask("POST", f"/work_pools/{pool}/workers/heartbeat", {"name": f"worker-of-{pool}"})

    def set_state(self, run: str, kind: str, message: str = "") -> None:
        state = {"type": kind, "message": message}
        self.api.ask("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})

    def command(self, *options: str, source: str = SOURCE, image: str = IMAGE) -> tuple[int, dict[str, Any], str]:
        platform = ("--platform", str(PLATFORM))
        status = main(["publish", source, image, *platform, "--json", *options])
        return status, json.loads(self.capture.readouterr().out), "\n".join(self.log.messages)

    def newest_run(self, deployment: str, *, seconds: float = 60) -> str:
        """The id of the run that the command has started, which is the newest of its deployment."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            query = {"deployments": {"id": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 1}
            unfinished = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
            if found := self.api.list_of("/flow_runs/filter", query | unfinished):
                return str(found[0]["id"])
            time.sleep(0.2)
        raise AssertionError("no run was started")


@pytest.fixture
def server(
    prefect: PrefectServer,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Server]:
    monkeypatch.setenv("PREFECT_API_URL", prefect.api_url)
    with PrefectApi(prefect.api_url) as api:
        for pool in (CONTROL_POOL, BRANCH_POOL):
            if api.work_pool(pool) is None:
                api.create_work_pool({"name": pool, "type": "process"})
        yield Server(api, capsys, caplog)


@pytest.fixture
def control(server: Server) -> str:
    """The deployments, and a worker for each pool; the id of the control deployment."""
    server.deploy(branch_deployment(PLATFORM), BRANCH_POOL)
    for pool in (CONTROL_POOL, BRANCH_POOL):
        server.beat(pool)
    return server.deploy(DEPLOYMENT, CONTROL_POOL)


def _result() -> PublicationResult:
    digest = Digest.of(b"index")
    image = PlatformImage(
        platform=PLATFORM, manifest=Descriptor(media_type=OCI_MANIFEST, digest=Digest.of(b"image"), size=1)
    )
    return PublicationResult(
        reference=f"{IMAGE}@{digest}", index=digest, platforms=(image,), tags=("v1",), verified=True, commit="0" * 40
    )


def _child(server: Server, parent: str, kind: str, message: str) -> str:
    """A branch that the control flow has started as its own, in this state."""
    task = {"flow_run_id": parent, "task_key": "branch", "dynamic_key": "0", "name": "branch"}
    task_run = server.api.ask("POST", "/task_runs/", task)["id"]
    flow = server.api.ask("POST", "/flows/", {"name": "build-platform"})["id"]
    body = {"flow_id": flow, "parent_task_run_id": task_run, "name": "a branch", "tags": [f"platform:{PLATFORM}"]}
    child = str(server.api.ask("POST", "/flow_runs/", body)["id"])
    server.set_state(child, kind, message)
    return child


def test_a_pool_without_a_worker_is_named_with_the_command_that_starts_one(server: Server) -> None:
    empty = "publish-command-empty"
    if server.api.work_pool(empty) is None:
        server.api.create_work_pool({"name": empty, "type": "process"})
    control = server.deploy(DEPLOYMENT, CONTROL_POOL)
    server.beat(CONTROL_POOL)
    server.deploy(branch_deployment(Platform("linux", "mips64")), empty)
    begun = time.monotonic()
    status, answer, _ = server.command("--platform", "linux/mips64", "--platform", "linux/mips64le")
    assert status == ExitCode.STACK
    assert "build-platform/linux-mips64le" in answer["reason"]
    status = main(["publish", SOURCE, IMAGE, "--platform", "linux/mips64", "--json"])
    answer = json.loads(server.capture.readouterr().out)
    assert status == ExitCode.NO_WORKER
    assert f"no worker polls the work pool {empty}" in answer["reason"]
    assert f"prefect worker start --pool {empty}" in answer["advice"]
    assert time.monotonic() - begun < 30
    query = {"deployments": {"id": {"any_": [control]}}}
    assert all(run["state_type"] != "SCHEDULED" for run in server.api.list_of("/flow_runs/filter", query))


def test_wrong_parameters_start_nothing(server: Server, control: str) -> None:
    status, answer, _ = server.command("--tag", "feature/x")
    assert status == ExitCode.INVALID_INPUT
    assert "feature-x" in answer["reason"]


def test_detach_answers_at_once_with_the_page_of_the_run(server: Server, control: str) -> None:
    status, answer, log = server.command("--detach", "--tag", "v1", "--soci", "min_layer_size=0")
    assert status == ExitCode.OK
    assert log.startswith("publishing through Prefect at http")
    assert answer["run_url"].endswith(f"/runs/flow-run/{answer['run']}")
    found = server.api.ask("GET", f"/flow_runs/{answer['run']}")
    assert found["name"].startswith("demo/site from git.example.com/shop/web.git")
    assert found["parameters"]["tags"] == ["v1"]
    assert found["parameters"]["soci"]["min_layer_size"] == 0
    server.set_state(answer["run"], "CANCELLED")


def test_a_run_that_completes_ends_with_its_result(server: Server, control: str) -> None:
    def work() -> None:
        run = server.newest_run(control)
        server.set_state(run, "RUNNING")
        _child(server, run, "RUNNING", "")
        time.sleep(3)
        artifact = {"type": RESULT, "data": _result().model_dump_json(), "flow_run_id": run}
        server.api.ask("POST", "/artifacts/", artifact)
        server.set_state(run, "COMPLETED")

    worker = threading.Thread(target=work)
    worker.start()
    status, answer, log = server.command()
    worker.join()
    assert status == ExitCode.OK
    assert (answer["tags"], answer["verified"]) == (["v1"], True)
    assert "/runs/flow-run/" in answer["run_url"]
    assert "publication: running" in log
    assert f"{PLATFORM}: running" in log


def test_a_run_that_fails_ends_with_its_cause_its_next_step_and_the_page_of_the_branch(
    server: Server, control: str
) -> None:
    child = ""

    def work() -> None:
        nonlocal child
        run = server.newest_run(control)
        server.set_state(run, "RUNNING")
        child = _child(server, run, "FAILED", "BuildFailed: no")
        cause = "BranchFailed: nothing was published, because of\nlinux/riscv64: the build failed\n  next: Fix it."
        server.set_state(run, "FAILED", f"Flow run encountered an exception: {cause}")

    worker = threading.Thread(target=work)
    worker.start()
    status, answer, _ = server.command()
    worker.join()
    assert status == answer["exit_code"] == ExitCode.BUILD_FAILED
    assert answer["reason"].startswith("nothing was published, because of\nlinux/riscv64: the build failed")
    assert f"{PLATFORM}: http" in answer["reason"]
    assert f"/runs/flow-run/{child}" in answer["reason"]
    assert answer["advice"] == "Fix it."


def test_an_interrupt_elsewhere_than_in_a_terminal_leaves_the_run(
    server: Server, control: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    # A signal of the test's own would reach the test runner.
    monkeypatch.setattr(publish_remote, "follow", interrupted)
    status, _, log = server.command()
    run = server.newest_run(control)
    assert status == 130
    assert "the publication continues: http" in log
    assert server.api.state(run).kind == "SCHEDULED"
    server.set_state(run, "CANCELLED")


def test_a_dry_run_names_pools_and_workers_and_starts_nothing(
    server: Server, control: str, client: RegistryClient, tmp_path: Path
) -> None:
    source: Repository = repository(tmp_path / "source")
    options = ("--remote", "--dry-run", "--tag", "{short_sha}")
    status, answer, _ = server.command(*options, source=str(source.path), image=f"{client.registry}/demo/site")
    commit = source.git("rev-parse", "HEAD")
    assert status == ExitCode.OK
    assert answer["tags"] == {commit[:12]: None}
    assert not answer["existing"]
    assert answer["builders"] == {str(PLATFORM): f"work pool {BRANCH_POOL} (worker-of-{BRANCH_POOL})"}
    assert CONTROL_POOL in answer["runs_in"]
    query = {"deployments": {"id": {"any_": [control]}}}
    assert all(run["state_type"] != "SCHEDULED" for run in server.api.list_of("/flow_runs/filter", query))


@pytest.mark.parametrize(("typed", "state"), [("y\n", "CANCELLED"), ("\n", "SCHEDULED")])
def test_ctrl_c_in_a_terminal_asks_and_cancels_only_after_a_yes(
    typed: str, state: str, server: Server, control: str
) -> None:
    platform = ("--platform", str(PLATFORM))
    command = [sys.executable, "-m", "soci_pipeline", "publish", SOURCE, IMAGE, *platform]
    outside, inside = os.openpty()
    child = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, start_new_session=True)
    os.close(inside)
    try:
        run = server.newest_run(control)
        shown = _until(outside, "publication: ")
        child.send_signal(signal.SIGINT)
        shown += _until(outside, "[y/N] ")
        os.write(outside, typed.encode())
        assert child.wait(60) == 130
    finally:
        child.kill()
        child.wait()
        os.close(outside)
    assert "publishing through Prefect" in shown
    assert server.api.state(run).kind == state
    server.set_state(run, "CANCELLED")


def _until(terminal: int, text: str) -> str:
    """Read a terminal until it shows a text."""
    shown = ""
    deadline = time.monotonic() + 60
    while text not in shown and time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 4096).decode()
    assert text in shown, shown
    return shown
