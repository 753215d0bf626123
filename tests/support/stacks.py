"""The stack shared by a whole test run, and the database from which stacks start."""

import contextlib
import hashlib
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from local_stack.engine import Engine
from local_stack.prefect_server import database_of, prefect_server
from local_stack.stack import Stack, StackOptions, deploy, local_stack
from local_stack.toolchain import Toolchain
from local_stack.workers import Worker

REPOSITORY = Path(__file__).resolve().parents[2]
_CACHE = REPOSITORY / ".cache" / "deployed"
# The input of `soci-pipeline setup` and `prefect deploy`; `src`, `tasks` and `flows` define the flows' parameters.
_SOURCES = ("src", "local_stack", "tasks", "flows", "deployments", "prefect.yaml", "requirements")


@contextmanager
def deployed_database(folder: Path) -> Iterator[Path]:
    """Yield the SQLite file of a Prefect server on which `setup` and `deploy --all` ran; cached between runs.

    It is created again if anything that the two commands read has changed.
    """
    kept = _CACHE / f"{_fingerprint()}.db"
    if not kept.exists():
        shutil.rmtree(_CACHE, ignore_errors=True)
        _CACHE.mkdir(parents=True)
        with prefect_server(folder) as server:
            deploy(server, REPOSITORY)
        fresh = kept.with_suffix(".new")
        _copy_database(database_of(folder / "home"), fresh)
        fresh.replace(kept)
    yield kept


def _copy_database(source: Path, target: Path) -> None:
    """Copy an SQLite file including its write-ahead log."""
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)


def _fingerprint() -> str:
    digest = hashlib.sha256(sys.executable.encode())
    for name in _SOURCES:
        place = REPOSITORY / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


@contextmanager
def shared_stack(folder: Path, *, engine: Engine, toolchain: Toolchain, prepared: Path) -> Iterator[Stack]:
    """Start a stack with a worker for each pool, usable by any process of the run."""
    isolated = os.geteuid() == 0
    options = StackOptions(
        engine=with_containerd_tools(engine, toolchain),
        toolchain=toolchain,
        deployed=prepared,
        isolated=isolated,
        # Workers are idle for minutes while other tests need the CPU; one poll costs them and the server 90 ms.
        poll_seconds=3,
    )
    with local_stack(folder, options) as started:
        workers = {
            pool: Worker(name=each.name, pool=pool, home=each.home, log=each.log, pid=each.pid)
            for pool, each in started.workers.items()
        }
        yield replace(started, workers=workers)


def with_containerd_tools(engine: Engine, toolchain: Toolchain) -> Engine:
    """Return the engine with ctr and soci on the PATH of its environment."""
    return replace(engine, env=dict(engine.env) | {"PATH": toolchain.ensure(["containerd", "soci"])["PATH"]})
