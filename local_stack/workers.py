"""Prefect process workers, each with a separate home, working folder and folder for temporary files."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_stack.isolation import isolated
from local_stack.ports import wait_until
from local_stack.prefect_server import client_environment
from soci_pipeline.machine.programs import background
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_rest.client import PrefectApi

CONTROL_POOL = "soci-control"
_START_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that polls its pool. Its process leads the process group from which its flow runs are started."""

    name: str
    pool: str
    home: Path
    log: Path
    pid: int


POLL = "PREFECT_WORKER_QUERY_SECONDS"


@dataclass(frozen=True, slots=True)
class StartedWorker(Worker):
    """A worker started by this process, which can wait for its end."""

    process: subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Isolation:
    """Folders that a worker must not see, and those in them that it still needs."""

    hide: Sequence[Path]
    keep: Sequence[Path]
    aside: Path
    """An empty folder outside all hidden ones."""


def pool_of(platform: Platform) -> str:
    """Return the work pool whose workers build for a platform: ``soci-arm64`` for linux/arm64."""
    return f"soci-{platform.normalised().architecture}"


@contextlib.contextmanager
def worker(
    pool: str,
    folder: Path,
    api_url: str,
    *,
    env: Mapping[str, str],
    isolation: Isolation | None = None,
    limit: int | None = None,
) -> Iterator[StartedWorker]:
    """Start a ``process`` worker for a pool with its home in ``folder``; use `wait_for` to wait until it polls.

    ``limit`` is the number of concurrent runs, unlimited by default. The worker polls every second, or at the interval
    in ``PREFECT_WORKER_QUERY_SECONDS`` of ``env``.
    """
    home = folder.absolute()
    for name in ("tmp", "work"):
        (home / name).mkdir(parents=True, exist_ok=True)
    environment = client_environment(api_url, home / ".prefect", env=env) | {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "SOCI_PIPELINE_WORK_FOLDER": str(home / "work"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        POLL: env.get(POLL, "1"),
    }
    name = f"{pool}-local"
    # `setup` creates the pools: a worker that created its own would hide that one is missing.
    options = ["--pool", pool, "--type", "process", "--name", name, "--install-policy", "never"]
    if limit is not None:
        options += ["--limit", str(limit)]
    argv = [sys.executable, "-m", "prefect", "worker", "start", *options]
    if isolation is not None:
        argv = isolated(argv, hide=isolation.hide, keep=[*isolation.keep, home], aside=isolation.aside)
    log = home / "worker.log"
    log.unlink(missing_ok=True)
    with background(argv, env=environment, cwd=home, log=log) as child:
        yield StartedWorker(name=name, pool=pool, home=home, log=log, pid=child.pid, process=child)


def wait_for(workers: Sequence[StartedWorker], api_url: str) -> None:
    """Wait until each worker polls its pool; raise `StackError` with the log of one that does not."""
    with PrefectApi(api_url) as api:
        for each in workers:
            wait_until(
                lambda each=each: each.name in api.online_workers(each.pool),  # type: ignore[misc]
                what=f"the worker of the pool {each.pool}",
                child=each.process,
                log=each.log,
                seconds=_START_SECONDS,
            )
