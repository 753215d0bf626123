"""The local stack and the demo, end to end: what they publish, and that nothing of them is left."""

import os
import sys
from pathlib import Path

import pytest

from local_stack.stack import Stack
from soci_pipeline.machine.programs import run
from soci_pipeline.project import project_folder
from soci_pipeline.registry.client import RegistryClient


def _inside(stack: Stack, pool: str, script: str) -> str:
    """Run a shell script in the mount namespace of a worker."""
    pid = str(stack.workers[pool].pid)
    return run(["nsenter", "--target", pid, "--mount", "sh", "-c", script], package="util-linux").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can isolate workers")
def test_a_worker_sees_neither_the_project_nor_the_other_workers(stack: Stack) -> None:
    mine, other = stack.workers["soci-amd64"], stack.workers["soci-arm64"]
    assert other.home.is_dir()
    assert _inside(stack, "soci-amd64", f"ls {mine.home.parent}").split() == [mine.home.name]
    assert _inside(stack, "soci-amd64", f"ls {stack.folder}").split() == ["workers"]
    assert "flows" not in _inside(stack, "soci-amd64", f"ls -A {project_folder()}").split()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can isolate workers")
def test_what_a_worker_writes_outside_of_its_home_does_not_reach_another(stack: Stack) -> None:
    _inside(stack, "soci-amd64", f"echo x > {stack.folder}/left-here")
    assert "left-here" not in _inside(stack, "soci-arm64", f"ls {stack.folder}")
    assert not (stack.folder / "left-here").exists()


def test_every_pool_has_a_worker_and_prefect_keeps_its_files_below_the_stack(stack: Stack) -> None:
    assert set(stack.workers) == {"soci-amd64", "soci-arm64", "soci-control"}
    assert Path(stack.env["PREFECT_HOME"]).is_relative_to(stack.folder)
    listing = run([sys.executable, "-m", "prefect", "deployment", "ls"], env=stack.env, timeout=120).stdout
    assert "publish-image/publish" in listing


def test_the_registry_of_the_stack_answers(stack: Stack) -> None:
    with RegistryClient(stack.registry) as client:
        client.ping()
