"""How workers are started, with a stand-in for Prefect's command; runs of flows are the real tier's."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_stack.workers import Isolation, StartedWorker, pool_of, wait_for, worker
from soci_pipeline.errors import StackError
from soci_pipeline.oci.platform import Platform
from tests.support.fake_programs import Programs
from tests.support.prefect_command import PrefectCommand
from tests.support.webhook import Recorded, loopback, until

API = "http://127.0.0.1:1/api"


@pytest.fixture
def command(tmp_path: Path) -> PrefectCommand:
    return PrefectCommand.write(tmp_path / "packages")


@contextlib.contextmanager
def _started(command: PrefectCommand, folder: Path, **settings: Any) -> Iterator[StartedWorker]:
    env = command.env | {"PATH": os.defpath} | settings.pop("env", {})
    with worker("soci-arm64", folder, API, env=env, **settings) as started:
        until(lambda: command.has_started, seconds=60)
        yield started


def _online(*names: str) -> Any:
    def answer(request: Recorded) -> tuple[int, Any]:
        assert request.path == "/work_pools/soci-arm64/workers/filter"
        return 200, [{"name": name, "status": "ONLINE"} for name in names]

    return answer


def test_the_pool_of_a_platform_is_named_after_its_architecture_alone() -> None:
    assert pool_of(Platform.parse("linux/arm64/v8")) == pool_of(Platform("linux", "arm64")) == "soci-arm64"


def test_a_worker_is_at_home_in_its_folder_and_ends_with_the_block(tmp_path: Path, command: PrefectCommand) -> None:
    with _started(command, tmp_path / "home") as started:
        note = command.started()
        assert started.process.pid == note["pid"]
    with pytest.raises(ProcessLookupError):
        os.kill(note["pid"], 0)
    home = str(tmp_path / "home")
    assert note["folder"] == note["env"]["HOME"] == home
    places = ("TMPDIR", "SOCI_PIPELINE_WORK_FOLDER", "XDG_CACHE_HOME", "PREFECT_HOME")
    assert all(note["env"][name].startswith(f"{home}/") for name in places)
    assert len({note["env"][name] for name in places}) == len(places)
    assert note["env"]["PREFECT_API_URL"] == API


def test_it_polls_its_pool_and_neither_makes_one_nor_installs_anything(tmp_path: Path, command: PrefectCommand) -> None:
    with _started(command, tmp_path / "home", limit=2):
        words = command.started()["argv"]
    assert words[:2] == ["worker", "start"]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options == {
        "--pool": "soci-arm64",
        "--type": "process",
        "--name": "soci-arm64-local",
        "--install-policy": "never",
        "--limit": "2",
    }


def test_an_isolated_worker_is_started_where_other_folders_are_hidden_and_its_own_is_not(
    tmp_path: Path, command: PrefectCommand
) -> None:
    programs = Programs(tmp_path / "programs")
    programs.folder.mkdir()
    programs.add("unshare", 'while [ "$1" != sh ]; do shift; done; exec "$@"')
    programs.add("mount", "")
    for name in ("stack/home", "aside"):
        (tmp_path / name).mkdir(parents=True)
    hiding = Isolation(hide=[tmp_path / "stack"], keep=[], aside=tmp_path / "aside")
    with _started(command, tmp_path / "stack" / "home", isolation=hiding, env=programs.env):
        assert command.started()["folder"] == str(tmp_path / "stack" / "home")
    hidden = f"mount -t tmpfs -o mode=0755 tmpfs {tmp_path}/stack"
    back = f"mount --rbind {tmp_path}/aside/0 {tmp_path}/stack/home"
    calls = programs.calls()
    assert calls.index(hidden) < calls.index(back)


def test_a_worker_is_ready_when_the_server_says_that_it_polls(tmp_path: Path, command: PrefectCommand) -> None:
    with _started(command, tmp_path / "home") as started, loopback(_online("other", "soci-arm64-local")) as url:
        wait_for([started], url)


def test_a_worker_that_ends_while_starting_is_shown_with_its_log(tmp_path: Path, command: PrefectCommand) -> None:
    command.fail("Work pool 'soci-arm64' does not exist")
    with (
        _started(command, tmp_path / "home") as started,
        loopback(_online("other")) as url,
        pytest.raises(StackError, match=r"(?s)the worker of the pool soci-arm64 ended while starting.*does not exist"),
    ):
        wait_for([started], url)
