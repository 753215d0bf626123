"""The automations that `setup` installs, in a real Prefect server that other teams use as well."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from local_stack.prefect_server import PrefectServer, prefect_server
from soci_pipeline.machine.programs import background, run
from soci_pipeline.prefect_rest.client import PrefectApi
from tests.support.webhook import Recorded, loopback, until

REPOSITORY = Path(__file__).resolve().parents[2]
BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
text = {"subject": "{{subject}}", "body": "{{body}}"}
CustomWebhookNotificationBlock(name="releases", url=sys.argv[1], json_data=text).save("releases", overwrite=True)
"""


# Flow runs that live and send one heartbeat in 150 s: "name of the flow, tag" each.
RUNS = """
import sys, threading, time
from prefect import flow, tags

def live(name, tag):
    with tags(tag):
        flow(name=name, flow_run_name=f"{name} {tag}")(lambda: time.sleep(150))()

for each in sys.argv[1:]:
    threading.Thread(target=live, args=each.split(), daemon=True).start()
time.sleep(150)
"""
TAG = "soci-pipeline"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as started:
        yield started


def setup(server: PrefectServer, *arguments: str, kind: str = "automations") -> dict[str, str]:
    """Runs `soci-pipeline setup`; what became of each automation, or of each thing of another kind."""
    argv = [sys.executable, "-m", "soci_pipeline", "setup", "--json", *arguments]
    answer = run(argv, cwd=REPOSITORY, env=server.env, timeout=300)
    found: dict[str, str] = json.loads(answer.stdout)[kind]
    return {name.removeprefix("soci-pipeline "): what for name, what in found.items()}


def posted(server: PrefectServer, path: str, document: dict[str, Any]) -> dict[str, Any]:
    """An answer of the server; one on SQLite that is busy with itself is asked again."""
    with PrefectApi(server.api_url) as api:
        found: dict[str, Any] = api.ask("POST", path, document)
    return found


def ended(server: PrefectServer, flow: str, name: str, state: str, message: str, tag: str = TAG) -> str:
    """A run of a flow that came to its end; its id."""
    flow_id = posted(server, "/flows/", {"name": flow})["id"]
    run = {"flow_id": flow_id, "name": name, "tags": [tag], "state": {"type": "RUNNING"}}
    made = posted(server, "/flow_runs/", run)
    last = {"type": state, "message": message}
    posted(server, f"/flow_runs/{made['id']}/set_state", {"state": last, "force": True})
    return str(made["id"])


def test_setup_installs_them_once_and_leaves_out_what_nobody_is_to_be_told(server: PrefectServer) -> None:
    first, second = setup(server), setup(server)
    assert first["crash silent runs"] == "made"
    assert second["crash silent runs"] == "unchanged"
    assert "no --notify-block" in second["notify failed publications"]


def installed(server: PrefectServer, name: str) -> list[dict[str, Any]]:
    """The automations of a name, as the server has them."""
    query = {"automations": {"name": {"any_": [f"soci-pipeline {name}"]}}}
    found: Any = posted(server, "/automations/filter", query)
    return list(found)


def changed(server: PrefectServer, automation: dict[str, Any], **trigger: Any) -> None:
    """Change an automation's trigger, and switch it off where ``enabled`` says so."""
    kept = {name: automation[name] for name in ("name", "description", "actions")}
    enabled = trigger.pop("enabled", True)
    document = kept | {"enabled": enabled, "trigger": automation["trigger"] | trigger}
    with PrefectApi(server.api_url) as api:
        api.ask("PUT", f"/automations/{automation['id']}", document)


def states(server: PrefectServer) -> dict[str, str]:
    """The states of all runs, by the runs' names."""
    found: Any = posted(server, "/flow_runs/filter", {})
    return {run["name"]: run["state_type"] for run in found}


@pytest.mark.timeout(600)
def test_only_silent_runs_of_this_project_are_crashed(server: PrefectServer, tmp_path: Path) -> None:
    setup(server)
    (automation,) = installed(server, "crash silent runs")
    # The shortest time that Prefect allows.
    changed(server, automation, within=10)
    runs = ("publish-image soci-pipeline", "train-model their-team", "train-model soci-pipeline", "publish-image team")
    environment = dict(server.env) | {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "150"}
    with background([sys.executable, "-c", RUNS, *runs], env=environment, log=tmp_path / "runs.log"):
        until(lambda: all(states(server).get(run) for run in runs), seconds=120)
        until(lambda: states(server)["publish-image soci-pipeline"] == "CRASHED", seconds=120)
        # All four are silent for as long; the server looks for silent runs every few seconds.
        time.sleep(15)
        found = states(server)
    assert {run: found[run] for run in runs} == {
        "publish-image soci-pipeline": "CRASHED",
        "train-model their-team": "RUNNING",
        "train-model soci-pipeline": "RUNNING",
        "publish-image team": "RUNNING",
    }


def test_an_automation_that_an_earlier_version_installed_is_limited_too_and_stays_switched_off(
    server: PrefectServer,
) -> None:
    setup(server)
    (automation,) = installed(server, "crash silent runs")
    expected = automation["trigger"]["match_related"]
    changed(server, automation, match_related={}, enabled=False)
    assert setup(server)["crash silent runs"] == "updated"
    (automation,) = installed(server, "crash silent runs")
    assert automation["trigger"]["match_related"] == expected
    assert automation["enabled"] is False
    changed(server, automation, within=130)


def test_types_of_blocks_that_are_there_are_left_as_they_are(server: PrefectServer) -> None:
    pytest.importorskip("prefect_aws")
    setup(server)
    assert setup(server, kind="blocks") == {"aws-credentials": "unchanged", "aws-secret": "unchanged"}
    with PrefectApi(server.api_url) as api:
        known = api.ask("GET", "/block_types/slug/aws-secret")["id"]
        api.ask("PATCH", f"/block_types/{known}", {"description": "an older description"})
        assert setup(server, kind="blocks")["aws-secret"] == "updated"
        api.ask("DELETE", f"/block_types/{known}")
        assert setup(server, kind="blocks") == {"aws-credentials": "unchanged", "aws-secret": "registered"}


def test_a_publication_that_fails_or_crashes_is_told_of_once_and_nothing_else_is(server: PrefectServer) -> None:
    told: list[Recorded] = []

    def receive(request: Recorded) -> tuple[int, Any]:
        told.append(request)
        return 200, {}

    with loopback(receive) as url:
        run([sys.executable, "-c", BLOCK, url], env=server.env, timeout=300)
        assert setup(server, "--notify-block", "custom-webhook/releases")["notify failed publications"] == "made"
        assert setup(server, "--notify-block", "custom-webhook/releases")["notify failed publications"] == "unchanged"
        mark = uuid4().hex
        ended(server, "build-platform", f"branch-{mark}", "FAILED", "a branch is told of by its publication")
        ended(server, "publish-image", f"foreign-{mark}", "FAILED", "another team's flow", tag="their-team")
        ended(server, "publish-image", f"fine-{mark}", "COMPLETED", "published")
        ended(server, "publish-image", f"failed-{mark}", "FAILED", "VerificationFailed: no tag moved")
        crashed = ended(server, "publish-image", f"crashed-{mark}", "CRASHED", "no heartbeat")
        until(lambda: sum(mark in each.body["subject"] for each in told) >= 2, seconds=120)
    texts = [each.body for each in told if mark in each.body["subject"]]
    assert sorted(each["subject"] for each in texts) == [
        f"Publication failed: crashed-{mark}",
        f"Publication failed: failed-{mark}",
    ]
    failed, other = sorted(texts, key=lambda each: str(each["subject"]), reverse=True)
    assert "VerificationFailed: no tag moved" in failed["body"]
    assert crashed in other["body"]
    # A later `setup` without the option brings what is installed up to date, with the block that it has.
    (automation,) = installed(server, "notify failed publications")
    expected = automation["trigger"]["match_related"]
    changed(server, automation, match_related={"prefect.resource.name": "publish-image"})
    assert setup(server)["notify failed publications"] == "updated"
    (again,) = installed(server, "notify failed publications")
    assert again["trigger"]["match_related"] == expected
    assert again["actions"] == automation["actions"]
