"""What `soci-pipeline setup` makes of the work pools of a real Prefect server."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate

from deployments.install import FOLDER, Report, install_pools


def test_the_limit_that_a_pool_made_by_a_worker_lacks_is_named_with_the_command_that_sets_it(tmp_path: Path) -> None:
    made, there = (f"pool-{uuid4().hex}" for _ in range(2))
    (tmp_path / "process.json").write_bytes((FOLDER / "work-pools" / "process.json").read_bytes())
    pools = [{"name": name, "description": "", "concurrency_limit": 7} for name in (made, there)]
    plan = {"template": "process.json", "environment": {}, "pools": pools}
    (tmp_path / "pools.yaml").write_text(yaml.safe_dump(plan))
    first, second = Report(), Report()

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=there, type="process"))
        install_pools(client, first, folder=tmp_path)
        said = first.done["limits"][there]
        advised = re.search(r"`prefect (.*)`", said)
        assert advised is not None, said
        environment = dict(os.environ) | {"PREFECT_API_URL": str(client.api_url), "PREFECT_HOME": str(tmp_path)}
        command = [sys.executable, "-m", "prefect", *shlex.split(advised[1])]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
        install_pools(client, second, folder=tmp_path)

    assert first.done["limits"][made] == "at most 7 runs at once"
    assert said.startswith("none; ")
    assert second.done["limits"] == {made: "at most 7 runs at once", there: "at most 7 runs at once"}
