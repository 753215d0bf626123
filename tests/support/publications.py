"""Publications through a stack as users start and see them: the command line, Prefect's API, the processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from local_stack.ports import answers, wait_until
from local_stack.stack import Stack
from local_stack.workers import StartedWorker, Worker, wait_for, worker
from soci_pipeline.machine.programs import background, run
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.runs import RunState
from soci_pipeline.soci.index.records import PlatformImage

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PROC = Path("/proc")


def start(stack: Stack, parameters: Mapping[str, Any]) -> str:
    """Start a publication through Prefect's API, which is seconds faster than its command; return the run's id."""
    with PrefectApi(stack.prefect_api_url) as api:
        return api.create_run("publish-image/publish", parameters)


def start_by_command(stack: Stack, parameters: Mapping[str, Any]) -> str:
    """Start a publication with Prefect's own command; return the id of its flow run."""
    command = ["deployment", "run", "publish-image/publish", "--params", json.dumps(dict(parameters))]
    printed = run([sys.executable, "-m", "prefect", *command], env=stack.env, timeout=120).stdout
    found = _ID.search(printed)
    assert found, printed
    return found.group()


def end_of(stack: Stack, run_id: str, *, seconds: float = 240) -> RunState:
    """Wait for a flow run to end; return its final state."""
    deadline = time.monotonic() + seconds
    with PrefectApi(stack.prefect_api_url) as api:
        while not (state := api.state(run_id)).is_final:
            assert time.monotonic() < deadline, f"{run_id} is still {state} after {seconds:g} s"
            time.sleep(0.5)
    return state


def completed(stack: Stack, parameters: Mapping[str, Any]) -> str:
    """Publish, and return the id of the run, which must complete."""
    return completes(stack, start(stack, parameters))


def completes(stack: Stack, run_id: str) -> str:
    """Wait for a run to complete, and return its id."""
    state = end_of(stack, run_id)
    assert state.is_completed, state
    return run_id


def branches(stack: Stack, run_id: str) -> tuple[str, ...]:
    """Return the flow runs of a publication's branches."""
    with PrefectApi(stack.prefect_api_url) as api:
        return tuple(api.children(run_id))


def records(stack: Stack, run_id: str) -> tuple[PlatformImage, ...]:
    """Return the records that a publication's branches have stored in their artifacts."""
    with PrefectApi(stack.prefect_api_url) as api:
        found = [PlatformImage.model_validate_json(text) for text in api.records(api.children(run_id))]
    return tuple(sorted(found, key=lambda record: str(record.platform)))


def ask(stack: Stack, path: str, body: Any = None) -> Any:
    """Return a response of Prefect's REST API, to a GET, or to a POST with ``body``.

    A server on SQLite answers 503 while its database is locked and has done nothing then, so the request is retried.
    """
    with PrefectApi(stack.prefect_api_url) as api:
        return api.ask("GET" if body is None else "POST", path, body)


def heartbeats(stack: Stack, run_id: str) -> tuple[datetime, ...]:
    """Return the times of a flow run's heartbeats, the latest first."""
    wanted = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run_id}"]},
        "order": "DESC",
    }
    events = ask(stack, "/events/filter", {"filter": wanted, "limit": 50})["events"]
    return tuple(datetime.fromisoformat(event["occurred"]) for event in events)


def processes(wanted: Callable[[Sequence[str], Mapping[str, str]], bool]) -> tuple[int, ...]:
    """Return the running processes of this machine for whose argv and environment ``wanted`` is true."""
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            argv, environment = _words(entry / "cmdline"), _words(entry / "environ")
        except OSError:
            continue
        if argv and wanted(argv, dict(word.partition("=")[::2] for word in environment)):
            found.append(int(entry.name))
    return tuple(found)


def _started(pid: int) -> int:
    """Return when a process started, in clock ticks since boot: process ids wrap around and do not say it."""
    return int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])


def processes_of_run(run_id: str) -> tuple[int, ...]:
    """Return the process of a flow run and its descendants."""
    return processes(
        lambda _, environment: environment.get("PREFECT__FLOW_RUN_ID", "").replace("-", "") == _bare(run_id)
    )


def sleeping(seconds: int) -> tuple[int, ...]:
    """Return the ``sleep`` processes of a build step."""
    return processes(lambda argv, _: Path(argv[0]).name == "sleep" and list(argv[1:]) == [str(seconds)])


def kill(pids: Sequence[int]) -> None:
    """Kill processes with SIGKILL, all at once: they are stopped first, so that none sees another one die."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def kill_machine(worker: StartedWorker) -> None:
    """Kill a worker and all that it has started, as if its machine lost power."""
    home = str(worker.home)
    kill(processes(lambda _, environment: environment.get("HOME") == home))
    worker.process.wait()


@contextmanager
def worker_of_its_own(stack: Stack, folder: Path, platform: Platform) -> Iterator[StartedWorker]:
    """Start a worker that alone builds for one more platform, in a separate work pool: a test may kill it.

    It has the environment of the stack's worker for amd64, so this machine must be able to run the platform.
    """
    known = ask(stack, "/work_pools/soci-amd64")
    pool = f"soci-{platform.slug.partition('-')[2]}-{uuid4().hex[:8]}"
    ask(stack, "/work_pools/", {"name": pool, "type": "process", "base_job_template": known["base_job_template"]})
    copy_deployment(stack, "build-platform/linux-amd64", name=platform.slug, pool=pool)
    environment = environment_of(stack.workers["soci-amd64"])
    with worker(pool, folder, stack.prefect_api_url, env=environment) as started:
        wait_for([started], stack.prefect_api_url)
        yield started


def copy_deployment(stack: Stack, original: str, *, name: str, pool: str) -> str:
    """Deploy the flow of a deployment again, with another name and work pool; return the id."""
    known = ask(stack, f"/deployments/name/{original}")
    # The automation selects runs by the tag.
    same = (
        "flow_id",
        "entrypoint",
        "path",
        "pull_steps",
        "enforce_parameter_schema",
        "parameter_openapi_schema",
        "tags",
    )
    made = ask(stack, "/deployments/", {key: known[key] for key in same} | {"name": name, "work_pool_name": pool})
    return str(made["id"])


def kill_server(stack: Stack) -> tuple[list[str], dict[str, str]]:
    """Kill the stack's Prefect server; return its argv and environment."""
    home = stack.env["PREFECT_HOME"]

    def serves(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
        return environment.get("PREFECT_HOME") == home and "PREFECT_SERVER_API_PORT" in environment

    found = processes(serves)
    assert found
    # The oldest process is the one that a user would start again.
    oldest = min(found, key=_started)
    argv, environment = _words(_PROC / str(oldest) / "cmdline"), _words(_PROC / str(oldest) / "environ")
    kill(found)
    return argv, dict(word.partition("=")[::2] for word in environment)


@contextmanager
def server_again(
    stack: Stack, argv: Sequence[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the Prefect server again, with the same address and database; wait until it answers."""
    folder = stack.folder / "prefect"
    log = folder / "server-again.log"
    with background(argv, env=environment, cwd=folder, log=log) as child:
        url = f"{stack.prefect_api_url}/health"
        wait_until(lambda: answers(url), what="the Prefect server", child=child, log=log, seconds=300)
        yield child


@contextmanager
def started_again(worker: StartedWorker, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the same worker again in the same home, with the environment from `environment_of`; wait until it polls."""
    argv = worker.process.args
    assert isinstance(argv, list)
    with (
        background([str(word) for word in argv], env=environment, cwd=worker.home, log=worker.log) as child,
        PrefectApi(environment["PREFECT_API_URL"]) as api,
    ):
        wait_until(
            lambda: worker.name in api.online_workers(worker.pool),
            what="the worker",
            child=child,
            log=worker.log,
            seconds=240,
        )
        yield child


def environment_of(worker: Worker) -> dict[str, str]:
    """Return the environment with which a running worker was started."""
    return dict(word.partition("=")[::2] for word in _words(_PROC / str(worker.pid) / "environ"))


def _words(file: Path) -> list[str]:
    return [word for word in file.read_bytes().decode(errors="replace").split("\0") if word]


def _bare(run_id: str) -> str:
    return run_id.replace("-", "")
