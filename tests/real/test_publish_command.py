"""`soci-pipeline publish` with a real engine: from this machine, and through a local stack."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from local_stack.engine import Engine
from local_stack.stack import Stack
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.verification.verify import verify
from tests.support.built_sources import PLAIN, source_of
from tests.support.git_repositories import Repository
from tests.support.tars import noise

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "buildx-static-site"
NATIVE = Platform.native().normalised()
BIG = 11 << 20

pytestmark = [pytest.mark.independent, pytest.mark.timeout(600)]


def _publish(env: Mapping[str, str], *arguments: str | Path) -> tuple[int, dict[str, Any], str]:
    """The exit status, the answer in JSON, and standard error."""
    command = [sys.executable, "-m", "soci_pipeline", "publish", *map(str, arguments), "--json"]
    done = subprocess.run(command, env=dict(env), capture_output=True, text=True, timeout=500, check=False)
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_folder_is_built_by_the_engine_of_this_machine_to_a_verified_tag(
    engine: Engine, embedded_registry: str, tmp_path: Path
) -> None:
    source = Repository(tmp_path / "site")
    shutil.copytree(EXAMPLE, source.path)
    (source.path / "site" / "model.bin").write_bytes(noise(BIG))
    source.git("init", "--quiet", "--initial-branch=main")
    commit = source.commit({})
    image = f"{embedded_registry}/demo/site"
    env = {**engine.env, "SOCI_PIPELINE_WORK_FOLDER": str(tmp_path / "work"), "PREFECT_HOME": str(tmp_path / "home")}
    both = ("--platform", "linux/amd64", "--platform", "linux/arm64")

    status, answer, log = _publish(env, source.path, image, *both)
    assert status == 0, log
    assert log.startswith("publishing from this machine: SOURCE is a folder")
    assert (answer["tags"], answer["commit"], answer["verified"]) == ([commit[:12]], commit, True)
    assert [each["platform"] for each in answer["platforms"]] == ["linux/amd64", "linux/arm64"]
    assert all(each["soci_index"] for each in answer["platforms"])
    assert 0 < answer["lazy_bytes"] < answer["total_bytes"]
    with RegistryClient(embedded_registry) as client:
        assert verify(client, "demo/site", commit[:12]).ok

    status, again, log = _publish(env, source.path, image, *both)
    assert status == 0, log
    assert again["index"] == answer["index"]
    assert sum(each["bytes_uploaded"] for each in again["platforms"]) == 0
    assert list((tmp_path / "work" / "runs").iterdir()) == []


def test_a_build_that_fails_says_why_and_publishes_nothing(
    engine: Engine, embedded_registry: str, tmp_path: Path
) -> None:
    source = tmp_path / "broken"
    source.mkdir()
    (source / "Dockerfile").write_text("FROM scratch\nCOPY no-such-file /\n")
    env = {**engine.env, "SOCI_PIPELINE_WORK_FOLDER": str(tmp_path / "work")}
    image = f"{embedded_registry}/demo/broken"
    status, answer, log = _publish(env, source, image, "--tag", "dev", "--platform", str(NATIVE))
    assert status == 14
    assert "no-such-file" in answer["reason"]
    assert log.count("ERROR: failed to solve") == 1, log


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can isolate workers")
def test_a_url_goes_through_the_workers_of_a_stack_and_ends_with_the_same_answer(stack: Stack, tmp_path: Path) -> None:
    parameters = source_of(stack, tmp_path, "publish-command", PLAIN)
    env = {**stack.env, "PREFECT_API_URL": stack.prefect_api_url}
    options = ("--tag", "latest", "--builder", "buildx")
    status, answer, log = _publish(env, parameters["source"], parameters["image"], *options)
    assert status == 0, log
    assert log.startswith("publishing through Prefect at http")
    assert "linux/arm64: completed" in log
    assert (answer["tags"], answer["verified"]) == (["latest"], True)
    assert answer["run_url"].startswith(stack.prefect_ui_url)
    assert [each["platform"] for each in answer["platforms"]] == ["linux/amd64", "linux/arm64"]
