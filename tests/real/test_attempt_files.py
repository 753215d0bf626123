"""What a real worker keeps of a run's environment, while the run lives and after both were killed."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from local_stack.stack import Stack
from local_stack.workers import StartedWorker, wait_for, worker
from soci_pipeline.machine.attempt_files import RUN_ID
from soci_pipeline.machine.marked_processes import Mark
from tests.support import publications as seen
from tests.support.webhook import until

POOL = "without-a-known-python"
SECRET = "hunter2-of-the-worker"
FLOW = """
import time
from pathlib import Path
from prefect import flow
from soci_pipeline.machine.workspace import workspace
from soci_pipeline.publish.leftovers import REMOVERS

@flow(name="holds")
def holds(root: str, seconds: int) -> None:
    with workspace(Path(root), "holds", REMOVERS):
        Path(root, f"started-{seconds}").touch()
        time.sleep(seconds)
"""


def deployed(stack: Stack, folder: Path) -> str:
    """The id of a deployment whose pool says nothing of a Python."""
    (folder / "holds.py").write_text(FLOW)
    seen.ask(stack, "/work_pools/", {"name": POOL, "type": "process"})
    flow = seen.ask(stack, "/flows/", {"name": "holds"})["id"]
    pull = [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}]
    fields = {"entrypoint": "holds.py:holds", "work_pool_name": POOL, "pull_steps": pull}
    return str(seen.ask(stack, "/deployments/", {"name": "holding", "flow_id": flow, **fields})["id"])


@contextlib.contextmanager
def polling(stack: Stack, home: Path) -> Iterator[StartedWorker]:
    environment = dict(os.environ) | {"AWS_SECRET_ACCESS_KEY": SECRET}
    with worker(POOL, home, stack.prefect_api_url, env=environment) as started:
        wait_for([started], stack.prefect_api_url)
        yield started


def kept(home: Path) -> dict[str, str]:
    """Every file of Prefect's in the worker's temporary folder, by path."""
    files = (home / "tmp").glob("prefect-workspace-attempt-*/*.json")
    return {str(path): path.read_text() for path in files}


@pytest.mark.timeout(900)
def test_no_secret_of_a_worker_outlives_it(stack: Stack, tmp_path: Path) -> None:
    home, root = tmp_path / "worker", tmp_path / "work"
    root.mkdir()
    deployment = deployed(stack, tmp_path)

    def start(seconds: int) -> str:
        parameters = {"root": str(root), "seconds": seconds}
        body = {"parameters": parameters, "idempotency_key": uuid4().hex}
        run = seen.ask(stack, f"/deployments/{deployment}/create_flow_run", body)
        until((root / f"started-{seconds}").exists, seconds=240)
        return str(run["id"])

    with polling(stack, home) as first:
        run = start(600)
        files = kept(home)
        assert any(path.endswith("workspace.json") and "PREFECT_API_URL" in text for path, text in files.items())
        assert SECRET not in "".join(files.values())
        os.kill(first.pid, signal.SIGKILL)
        Mark(RUN_ID, run).end(grace=0.1)
    assert set(kept(home)) == set(files)
    with polling(stack, home):
        start(0)
        assert not set(kept(home)) & set(files)
