"""The local stack: a Prefect server, a registry, a git server and a worker for each pool, on this machine alone.

Everything has a home of its own below one folder and listens on a free port of the loopback interface. What is started
is stopped on any exit; what a killed stack left is taken away by the next one in the same folder.
"""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from local_stack.engine import Engine
from local_stack.footprint import Footprint, footprint
from local_stack.git_server import GitServer, Served, git_server
from local_stack.postgres import postgres
from local_stack.prefect_server import PrefectServer, prefect_server
from local_stack.registry import embedded_registry
from local_stack.toolchain import Toolchain
from local_stack.workers import CONTROL_POOL, POLL, Isolation, StartedWorker, Worker, pool_of, wait_for, worker
from soci_pipeline.errors import SociPipelineError, StackError, ToolFailed
from soci_pipeline.log import logger
from soci_pipeline.machine.programs import run
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_setup.install import install
from soci_pipeline.project import project_folder

Database = Literal["sqlite", "postgres"]
PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm64"))


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that is ready to publish."""

    folder: Path
    prefect_api_url: str
    prefect_ui_url: str
    registry: str
    """The registry's address, ``127.0.0.1:PORT``; it is spoken to without TLS."""
    docker_host: str | None
    git: GitServer
    workers: Mapping[str, Worker]
    """The workers by the name of their pool."""
    env: Mapping[str, str] = field(repr=False)
    """An environment for programs beside the workers: the API, the engine, the tools."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What a stack consists of, and how its workers run."""

    engine: Engine | None = None
    """None gives workers that build nothing."""
    platforms: Sequence[Platform] = PLATFORMS
    toolchain: Toolchain = field(default_factory=Toolchain)
    database: Database = "sqlite"
    """What the Prefect server keeps its state in; PostgreSQL comes from Debian's package."""
    deployed: Path | None = None
    """An SQLite database in which `deploy` has already made pools and deployments: a copy of it saves that time."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """How many runs the worker of a pool takes at once; unlimited for a pool that is not listed."""
    isolated: bool = False
    """Whether each worker runs in a mount namespace that hides the other folders; requires root."""
    worker_python: bool = True
    """Whether the pools know the Python of the workers, which starts runs sooner (`setup --worker-python`)."""
    poll_seconds: int = 1
    """How often a worker asks for work."""


@contextlib.contextmanager
def local_stack(folder: Path, options: StackOptions) -> Iterator[Stack]:
    """Start everything, make the pools, deploy the flows, and wait until the workers poll; raises `StackError`."""
    folder = folder.absolute()
    project = project_folder()
    started = time.monotonic()
    engine = options.engine
    with footprint(folder) as traces, contextlib.ExitStack() as stack, _telling_its_end():
        _forget(folder)
        base = dict(engine.env if engine else options.toolchain.environment()) | traces.environment
        servers = stack.enter_context(_servers(folder, traces, options, env=base))
        flows = servers.git.serve_snapshot(project, "flows", message="The flows that this stack runs")
        if options.deployed is None:
            deploy(servers.prefect, project, worker_python=options.worker_python)
        environment = base | _worker_environment(engine, flows) | {POLL: str(options.poll_seconds)}
        isolation = _isolation(folder, project, options.toolchain, traces) if options.isolated else None
        workers = stack.enter_context(
            _workers(folder / "workers", servers.prefect, options, env=environment, isolation=isolation)
        )
        logger().info(
            "the stack is ready after %.0f s; Prefect's UI: %s", time.monotonic() - started, servers.prefect.ui_url
        )
        yield Stack(
            folder=folder,
            prefect_api_url=servers.prefect.api_url,
            prefect_ui_url=servers.prefect.ui_url,
            registry=servers.registry,
            docker_host=engine.docker_host if engine else None,
            git=servers.git,
            workers=workers,
            env=servers.prefect.env,
        )


@contextlib.contextmanager
def _telling_its_end() -> Iterator[None]:
    """Say that the stack is being stopped, which takes seconds, before it is; whatever ended it."""
    try:
        yield
    finally:
        logger().info("stopping the stack")


def _forget(folder: Path) -> None:
    """Remove what an earlier run published: it would be there already."""
    for name in ("registry", "git", "postgres", "prefect", "workers"):
        shutil.rmtree(folder / name, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Servers:
    registry: str
    git: GitServer
    prefect: PrefectServer


@contextlib.contextmanager
def _servers(folder: Path, traces: Footprint, options: StackOptions, *, env: Mapping[str, str]) -> Iterator[_Servers]:
    logger().info("starting a registry, a git server and a Prefect server")
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(embedded_registry(folder / "registry", env=env))
        git = stack.enter_context(git_server(folder / "git", env=env))
        url = None
        if options.database == "postgres":
            url = stack.enter_context(postgres(folder / "postgres", traces, toolchain=options.toolchain, env=env))
        prefect = stack.enter_context(
            prefect_server(folder / "prefect", env=env, database=url, deployed=options.deployed)
        )
        yield _Servers(address, git, prefect)


@contextlib.contextmanager
def _workers(
    folder: Path, server: PrefectServer, options: StackOptions, *, env: Mapping[str, str], isolation: Isolation | None
) -> Iterator[dict[str, StartedWorker]]:
    """A worker for each pool, in folders below ``folder``; all of them poll."""
    pools = _pools(options.platforms)
    logger().info("starting a worker for each of %s", ", ".join(pools))
    with contextlib.ExitStack() as stack:
        workers = {
            pool: stack.enter_context(
                worker(
                    pool, folder / pool, server.api_url, env=env, isolation=isolation, limit=options.limits.get(pool)
                )
            )
            for pool in pools
        }
        wait_for(tuple(workers.values()), server.api_url)
        yield workers


def _pools(platforms: Sequence[Platform]) -> tuple[str, ...]:
    return (*dict.fromkeys(pool_of(platform) for platform in platforms), CONTROL_POOL)


def deploy(server: PrefectServer, project: Path, *, worker_python: bool = True) -> None:
    """Make the work pools on a server and deploy the flows of a checkout; raises `StackError`.

    Where the flows come from stays open in the deployments: each worker has it in its environment.
    """
    logger().info("making the work pools and deploying the flows")
    try:
        with PrefectApi.from_environment(server.env) as api:
            python = sys.executable if worker_python else None
            install(api, project / "deployments", notify_block=None, worker_python=python)
    except SociPipelineError as error:
        raise StackError(f"soci-pipeline setup failed\n{error.reason}") from error
    argv = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    try:
        run(argv, env=server.env, cwd=project, timeout=600)
    except ToolFailed as error:
        raise StackError(f"prefect deploy failed\n{error.reason}") from error


def _worker_environment(engine: Engine | None, flows: Served) -> dict[str, str]:
    environment = _flows_environment(flows)
    if engine is not None and engine.private:
        # It has no bridge of its own, so that it can run beside another engine.
        environment["SOCI_PIPELINE_BUILD_NETWORK"] = "host"
    return environment


def _flows_environment(flows: Served) -> dict[str, str]:
    return {"SOCI_PIPELINE_REPOSITORY": flows.url, "SOCI_PIPELINE_COMMIT": flows.commit}


def _isolation(folder: Path, project: Path, tools: Toolchain, traces: Footprint) -> Isolation:
    if os.geteuid() != 0:
        raise StackError("only root can isolate workers in mount namespaces")
    aside = Path(tempfile.mkdtemp(prefix="soci-aside-"))
    traces.record_folder(aside)
    # Python and the library stay: every real worker has them too.
    return Isolation(hide=(project, folder), keep=(Path(sys.prefix), project / "src", tools.folder), aside=aside)
