"""Deploying again, as an upgrade does, on a real server: what an operator has set there stays."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from local_stack.prefect_server import PrefectServer, prefect_server
from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.machine.programs import run
from soci_pipeline.prefect_rest.client import PrefectApi

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
    found: dict[str, Any] = ask(server, "GET", f"/deployments/name/{name}")
    return found


def change(server: PrefectServer, name: str, **fields: Any) -> None:
    ask(server, "PATCH", f"/deployments/{deployment(server, name)['id']}", fields)


def ask(server: PrefectServer, method: str, path: str, body: Any = None) -> Any:
    """An answer of the server; one on SQLite that is busy with itself is asked again."""
    with PrefectApi(server.api_url) as api:
        return api.ask(method, path, body)


def schedules(found: dict[str, Any]) -> list[tuple[str, str, bool]]:
    return [(each["schedule"]["cron"], each["schedule"]["timezone"], each["active"]) for each in found["schedules"]]


@pytest.mark.timeout(1200)
def test_what_was_set_on_the_server_survives_a_repeated_deployment(server: PrefectServer) -> None:
    name = "publish-image/publish"
    schedule = {"cron": "30 1 * * *", "timezone": "Europe/Berlin"}
    change(server, name, parameters=SET, schedules=[{"schedule": schedule, "active": True}])
    change(server, name, paused=True, job_variables={"env": {"A": "b"}})
    # The last one that is deployed has no later one after it.
    change(server, "prune-repository/prune", parameters={"keep_latest": 7})

    printed = deployed_again(server)

    found = deployment(server, name)
    assert found["parameters"] == SET
    assert schedules(found) == [("30 1 * * *", "Europe/Berlin", True)]
    assert f"{name}: kept the parameters of the server: image, source, tags" in " ".join(printed.split())
    assert found["paused"] is True
    assert found["job_variables"] == {"env": {"A": "b"}}
    assert deployment(server, "prune-repository/prune")["parameters"] == {"keep_latest": 7}


@pytest.mark.timeout(1200)
def test_a_deployment_that_is_not_there_yet_is_as_the_file_declares_it(server: PrefectServer) -> None:
    name = "prune-repository/prune"
    ask(server, "DELETE", f"/deployments/{deployment(server, name)['id']}")
    printed = deployed_again(server)
    assert f"{name}: kept" not in printed
    assert "build-platform/linux-amd64: kept" not in printed
    first = deployment(server, name)
    assert (first["parameters"], first["schedules"]) == ({}, [])
    assert first["global_concurrency_limit"]["limit"] == 1


@pytest.mark.timeout(1200)
def test_a_repeated_deployment_loses_nothing_of_a_publications_file(
    server: PrefectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, name = tmp_path / "publications.yaml", "publish-image/shop"
    monkeypatch.setenv("PREFECT_API_URL", server.api_url)

    def applied(ref: str) -> list[str]:
        publication = SET | {"name": "shop", "ref": ref, "schedule": "17 3 * * *"}
        file.write_text(yaml.safe_dump({"version": 1, "owner": "shop", "publications": [publication]}))
        capsys.readouterr()
        assert main(["setup", "--publications", str(file)]) == ExitCode.OK
        return capsys.readouterr().out.splitlines()

    made, advice = applied("main")
    assert made == f"{name}: made"
    assert "next: start one with `prefect deployment run" in advice
    change(server, name, parameters=deployment(server, name)["parameters"] | {"verify": "all"}, paused=True)
    before = deployment(server, name)

    deployed_again(server)

    assert deployment(server, name) == before
    assert applied("main") == [f"{name}: unchanged", '  parameters.verify: kept "all" of the server']
    assert applied("release")[:2] == [f"{name}: updated", '  parameters.ref: "main" -> "release"']
    found = deployment(server, name)
    assert found["parameters"] == SET | {"ref": "release", "verify": "all"}
    assert (found["paused"], schedules(found)) == (True, [("17 3 * * *", "UTC", True)])
