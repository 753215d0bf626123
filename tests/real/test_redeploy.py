"""Deploying again, as an upgrade does, on a real server: what an operator has set there stays."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from local_stack.prefect_server import PrefectServer, prefect_server
from soci_pipeline.machine.programs import run

REPOSITORY = Path(__file__).resolve().parents[2]
SET = {
    "image": "registry.example.com/acme/shop",
    "source": "https://git.example.com/acme/shop.git",
    "tags": ["ours-{date}", "nightly"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Iterator[PrefectServer]:
    """A server on which everything is deployed already."""
    with prefect_server(tmp_path_factory.mktemp("prefect"), deployed=prepared) as started:
        yield started


def deployed_again(server: PrefectServer) -> str:
    """What `prefect deploy --all` prints."""
    argv = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    return run(argv, env=server.env, cwd=REPOSITORY, timeout=600).stdout


def deployment(server: PrefectServer, name: str) -> dict[str, Any]:
    answer = httpx.get(f"{server.api_url}/deployments/name/{name}", timeout=60, trust_env=False)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def change(server: PrefectServer, name: str, **fields: Any) -> None:
    url = f"{server.api_url}/deployments/{deployment(server, name)['id']}"
    httpx.patch(url, json=fields, timeout=60, trust_env=False).raise_for_status()


def schedules(found: dict[str, Any]) -> list[tuple[str, str, bool]]:
    return [(each["schedule"]["cron"], each["schedule"]["timezone"], each["active"]) for each in found["schedules"]]


@pytest.mark.timeout(1200)
def test_what_was_set_on_the_server_survives_a_repeated_deployment(server: PrefectServer) -> None:
    nightly, default = "publish-image/nightly", "publish-image/publish"
    before = deployment(server, nightly)
    declared = dict(before["parameters"])
    schedule = {"cron": "30 1 * * *", "timezone": "Europe/Berlin"}
    change(server, nightly, parameters=declared | SET, schedules=[{"schedule": schedule, "active": True}])
    change(server, default, parameters={"platforms": ["linux/arm64"]}, paused=True, job_variables={"env": {"A": "b"}})
    # The last one that is deployed has no later one after it.
    change(server, "prune-repository/prune", parameters={"keep_latest": 7})

    printed = deployed_again(server)

    found = deployment(server, nightly)
    assert found["parameters"] == declared | SET
    assert schedules(found) == [("30 1 * * *", "Europe/Berlin", True)]
    assert f"{nightly}: kept the parameters of the server: image, source, tags" in " ".join(printed.split())
    other = deployment(server, default)
    assert other["parameters"] == {"platforms": ["linux/arm64"]}
    assert other["paused"] is True
    assert other["job_variables"] == {"env": {"A": "b"}}
    assert deployment(server, "prune-repository/prune")["parameters"] == {"keep_latest": 7}


@pytest.mark.timeout(1200)
def test_a_deployment_that_is_not_there_yet_is_as_the_file_declares_it(server: PrefectServer) -> None:
    name = "publish-image/nightly"
    httpx.delete(f"{server.api_url}/deployments/{deployment(server, name)['id']}", timeout=60, trust_env=False)
    printed = deployed_again(server)
    assert f"{name}: kept" not in printed
    assert "build-platform/linux-amd64: kept" not in printed
    first = deployment(server, name)
    assert first["parameters"] == {"tags": ["nightly-{date}", "nightly"], "pull": True, "unless_same_as": "nightly"}
    assert schedules(first) == [("17 3 * * *", "UTC", False)]
