"""What Prefect's worker keeps of a run's environment: stripped by the run itself, removed after a killed worker."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from soci_pipeline.machine.attempt_files import RUN_ID, clean_attempt_files, is_secret
from soci_pipeline.machine.workspace import workspace
from soci_pipeline.publish.leftovers import REMOVERS

ENVIRONMENT = {
    "PATH": "/usr/bin",
    "PREFECT_API_URL": "http://127.0.0.1:4200/api",
    "PREFECT_API_KEY": "pnu_1",
    "SOCI_PIPELINE_REGISTRY_USERNAME": "robot",
    "SOCI_PIPELINE_REGISTRY_PASSWORD": "hunter2-registry",
    "COSIGN_PASSWORD": "hunter2-cosign",
    "AWS_SECRET_ACCESS_KEY": "hunter2-aws",
    "AWS_SESSION_TOKEN": "hunter2-session",
}
KEPT = {"PATH", "PREFECT_API_URL", "PREFECT_API_KEY"}
LONG_AGO = 1_000_000_000


def attempt(temporary: Path, run_id: str, *, made: float | None = None) -> Path:
    """The folder of one attempt as Prefect 3.9 writes it."""
    folder = temporary / f"prefect-workspace-attempt-{uuid4().hex[:8]}"
    folder.mkdir(mode=0o700)
    (folder / "supervisor.json").write_text(json.dumps({"flow_run_id": run_id, "workspace_root": "/tmp/x"}))
    manifest = folder / "workspace.json"
    manifest.touch(mode=0o600)
    manifest.write_text(json.dumps({"runtime_entrypoint": "flows/x.py:x", "environment": ENVIRONMENT}))
    if made is not None:
        os.utime(folder, (made, made))
    return folder


@pytest.fixture
def living_run() -> Iterator[str]:
    """The id of a run that has a process."""
    run_id = str(uuid4())
    argv = [sys.executable, "-c", "print(flush=True); import time; time.sleep(300)"]
    with subprocess.Popen(argv, env={RUN_ID: run_id}, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield run_id
        child.kill()


def test_the_file_of_a_run_keeps_only_what_its_hooks_need(tmp_path: Path) -> None:
    run_id = str(uuid4())
    folder = attempt(tmp_path, run_id, made=LONG_AGO)
    assert clean_attempt_files(tmp_path, {RUN_ID: run_id}) == ()
    assert folder.stat().st_mtime == LONG_AGO, "the time of the attempt's begin"
    document = json.loads((folder / "workspace.json").read_text())
    assert set(document["environment"]) == KEPT
    assert document["runtime_entrypoint"] == "flows/x.py:x"
    assert (folder / "workspace.json").stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in folder.iterdir()) == ["supervisor.json", "workspace.json"]


def test_what_a_killed_worker_left_is_removed_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    folder = attempt(temporary, str(uuid4()), made=LONG_AGO)
    # Killed before it had written anything.
    empty = temporary / "prefect-workspace-attempt-empty"
    empty.mkdir()
    os.utime(empty, (LONG_AGO, LONG_AGO))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    with workspace(tmp_path / "work", "next", REMOVERS):
        assert not folder.exists()
        assert not empty.exists()


def test_a_run_that_outlived_its_worker_keeps_its_folder(tmp_path: Path, living_run: str) -> None:
    folder = attempt(tmp_path, living_run, made=LONG_AGO)
    assert clean_attempt_files(tmp_path, {}) == ()
    assert set(json.loads((folder / "workspace.json").read_text())["environment"]) == set(ENVIRONMENT)


def test_the_folder_of_a_living_worker_is_left_to_it(tmp_path: Path) -> None:
    """Its run has just ended, and a hook may need the file."""
    folder = attempt(tmp_path, str(uuid4()), made=time.time() + 60)
    assert clean_attempt_files(tmp_path, {}) == ()
    assert folder.exists()


def test_folders_and_links_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    os.utime(tmp_path / "elsewhere", (LONG_AGO, LONG_AGO))
    (tmp_path / "prefect-workspace-attempt-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "prefect-workspace-attempt-file").write_text("x")
    assert clean_attempt_files(tmp_path, {}) == ()
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("content", ["", "[]", "{", '{"environment": 3}', '{"flow_run_id": null}'])
def test_a_file_that_is_not_as_expected_stops_no_run(tmp_path: Path, content: str) -> None:
    run_id = str(uuid4())
    folder = attempt(tmp_path, run_id)
    (folder / "workspace.json").write_text(content)
    other = attempt(tmp_path, "x", made=time.time() + 60)
    (other / "supervisor.json").write_text(content)
    assert clean_attempt_files(tmp_path, {RUN_ID: run_id}) == ()
    assert (folder / "workspace.json").read_text() == content


@pytest.mark.parametrize("name", ["PATH", "HOME", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "SOCI_PIPELINE_HOME"])
def test_what_a_hook_needs_is_no_secret(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "PREFECT_SERVER_API_AUTH_STRING",
        "PREFECT_SERVER_DATABASE_PASSWORD",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL",
        "PGPASSWORD",
        "DB_PASS",
        "MYSQL_PWD",
        "SIGNING_PASSPHRASE",
        "SENTRY_DSN",
        "DOCKER_AUTH_CONFIG",
        "aws_secret_access_key",
    ],
)
def test_a_secret_of_another_kind_is_one_as_well(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "SSH_AUTH_SOCK", "PREFECT_CLIENT_CUSTOM_HEADERS", "PREFECT_HOME"])
def test_what_only_sounds_like_a_secret_stays(name: str) -> None:
    assert not is_secret(name)


def test_a_url_with_a_password_is_a_secret_but_for_the_way_to_prefect() -> None:
    url = "https://robot:hunter2@packages.example.com/simple"
    assert is_secret("PIP_INDEX_URL", url)
    assert not is_secret("PIP_INDEX_URL", "https://packages.example.com/simple")
    assert not is_secret("HTTPS_PROXY", url)
    assert not is_secret("PREFECT_API_URL", url)
