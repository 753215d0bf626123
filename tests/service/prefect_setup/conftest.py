"""A real Prefect server and what the checkout declares, under names of its own: other tests use the server too."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from local_stack.prefect_server import PrefectServer
from soci_pipeline.prefect_rest.client import PrefectApi

DEPLOYMENTS = Path(__file__).resolve().parents[3] / "deployments"


@pytest.fixture
def api(prefect: PrefectServer) -> Iterator[PrefectApi]:
    with PrefectApi(prefect.api_url) as client:
        yield client


@pytest.fixture
def deployments(tmp_path: Path) -> Path:
    """What the checkout declares, with the pools and automations renamed, and the automations switched off."""
    mark = uuid4().hex[:8]
    folder = tmp_path / "deployments"
    for part in ("work-pools", "automations", "block-types"):
        shutil.copytree(DEPLOYMENTS / part, folder / part)
    for path in (folder / "automations").glob("*.yaml"):
        fields = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(fields | {"name": f"{fields['name']} {mark}", "enabled": False}))
    plan = yaml.safe_load((folder / "work-pools" / "pools.yaml").read_text())
    plan["pools"] = [pool | {"name": f"{pool['name']}-{mark}"} for pool in plan["pools"]]
    (folder / "work-pools" / "pools.yaml").write_text(yaml.safe_dump(plan))
    return folder
