"""`soci-pipeline capacity simulate` with the Prefect server that it starts for itself."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

from soci_pipeline.capacity.policy import Demand, Policy
from soci_pipeline.capacity.simulated_queue import PrefectBackend
from soci_pipeline.capacity.simulation import Pool, Scenario, simulate
from soci_pipeline.local.prefect_server import prefect_server
from soci_pipeline.prefect_api import PrefectApi
from tests.support.webhook import until


def _processes_with(variable: str) -> list[str]:
    """The processes that were started with a variable of the environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(process.name)
    return found


def test_a_simulation_that_is_told_to_end_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "soci_pipeline", "capacity", "simulate", "--rate", "1:1000"]
    with (tmp_path / "log").open("w") as log:
        child = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(tmp_path)}, stderr=log, stdout=log)
    try:
        until(lambda: "goes from" in (tmp_path / "log").read_text() or child.poll() is not None, seconds=120)
        assert len(_processes_with(f"TMPDIR={tmp_path}")) > 1
        child.terminate()
        assert child.wait(60) == 130, (tmp_path / "log").read_text()
    finally:
        child.kill()
        child.wait()
    until(lambda: _processes_with(f"TMPDIR={tmp_path}") == [], seconds=5)
    assert not list(tmp_path.glob("soci-simulation-*"))


def test_the_simulation_loses_no_run_of_a_real_server(tmp_path: Path) -> None:
    with prefect_server(tmp_path) as server, PrefectApi(server.api_url, patience_s=10) as api:
        pools = (Pool(f"pool-{uuid4().hex}", 0.2, 120), Pool(f"pool-{uuid4().hex}", 0.1, 120))
        backend = PrefectBackend(api)
        for each in pools:
            backend.add_pool(each.name)
        outcome = simulate(Scenario(40, 0.2, pools, Policy(idle_s=60)), backend)
        assert outcome.publishes == len(outcome.waits) > 3
        for each in pools:
            assert backend.demand(each.name) == Demand(0, 0)
            answer = api.ask("POST", "/flow_runs/count", {"work_pools": {"name": {"any_": [each.name]}}})
            assert answer == outcome.publishes
