"""The automations that `setup` installs, in a real Prefect server: who is told of a failed publication, and of what."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from soci_pipeline.local.prefect_server import PrefectServer, prefect_server
from soci_pipeline.process import run
from tests.support.webhook import Recorded, loopback, until

REPOSITORY = Path(__file__).resolve().parents[2]
BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
text = {"subject": "{{subject}}", "body": "{{body}}"}
CustomWebhookNotificationBlock(name="releases", url=sys.argv[1], json_data=text).save("releases", overwrite=True)
"""


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
    """An answer of the server; one on SQLite says 503 while it is busy with itself."""
    answers: list[httpx.Response] = []

    def done() -> bool:
        answers.append(httpx.post(server.api_url + path, json=document, timeout=60, trust_env=False))
        return answers[-1].status_code != 503

    until(done, seconds=120)
    found: dict[str, Any] = answers[-1].raise_for_status().json()
    return found


def ended(server: PrefectServer, flow: str, name: str, state: str, message: str) -> str:
    """A run of a flow that came to its end; its id."""
    flow_id = posted(server, "/flows/", {"name": flow})["id"]
    made = posted(server, "/flow_runs/", {"flow_id": flow_id, "name": name, "state": {"type": "RUNNING"}})
    last = {"type": state, "message": message}
    posted(server, f"/flow_runs/{made['id']}/set_state", {"state": last, "force": True})
    return str(made["id"])


def test_setup_installs_them_once_and_leaves_out_what_nobody_is_to_be_told(server: PrefectServer) -> None:
    first, second = setup(server), setup(server)
    assert first["crash silent runs"] == "made"
    assert second["crash silent runs"] == "unchanged"
    assert "no --notify-block" in second["notify failed publications"]


def test_types_of_blocks_that_are_there_are_left_as_they_are(server: PrefectServer) -> None:
    pytest.importorskip("prefect_aws")
    setup(server)
    assert setup(server, kind="blocks") == {"aws-credentials": "unchanged", "aws-secret": "unchanged"}
    with httpx.Client(timeout=60, trust_env=False) as client:
        known = client.get(f"{server.api_url}/block_types/slug/aws-secret").json()["id"]
        older = {"description": "an older description"}
        client.patch(f"{server.api_url}/block_types/{known}", json=older).raise_for_status()
        assert setup(server, kind="blocks")["aws-secret"] == "brought up to date"
        client.delete(f"{server.api_url}/block_types/{known}").raise_for_status()
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
