"""What `soci-pipeline setup` makes of the work pools of a real Prefect server."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import yaml

from local_stack.prefect_server import PrefectServer
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_setup.install import install

DEPLOYMENTS = Path(__file__).resolve().parents[3] / "deployments"


def limits_after_setup(api: PrefectApi, folder: Path) -> dict[str, str]:
    notes = install(api, folder, notify_block=None, worker_python=None)
    return {note.name: note.result for note in notes if note.kind == "limits"}


def test_the_limit_that_a_pool_made_by_a_worker_lacks_is_named_with_the_command_that_sets_it(
    prefect: PrefectServer, tmp_path: Path
) -> None:
    made, there = (f"pool-{uuid4().hex}" for _ in range(2))
    (tmp_path / "work-pools").mkdir()
    (tmp_path / "block-types").symlink_to(DEPLOYMENTS / "block-types")
    (tmp_path / "work-pools" / "process.json").write_bytes((DEPLOYMENTS / "work-pools" / "process.json").read_bytes())
    pools = [{"name": name, "description": "", "concurrency_limit": 7} for name in (made, there)]
    plan = {"template": "process.json", "environment": {}, "pools": pools}
    (tmp_path / "work-pools" / "pools.yaml").write_text(yaml.safe_dump(plan))

    with PrefectApi(prefect.api_url) as api:
        api.create_work_pool({"name": there, "type": "process"})
        first = limits_after_setup(api, tmp_path)
        advised = re.search(r"`prefect (.*)`", first[there])
        assert advised is not None, first
        environment = dict(os.environ) | {"PREFECT_API_URL": prefect.api_url, "PREFECT_HOME": str(tmp_path)}
        command = [sys.executable, "-m", "prefect", *shlex.split(advised[1])]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
        second = limits_after_setup(api, tmp_path)

    assert first[made] == "at most 7 runs at once"
    assert first[there].startswith("none; ")
    assert second == {made: "at most 7 runs at once", there: "at most 7 runs at once"}
