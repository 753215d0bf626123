"""The local stack: a Prefect server, a registry, a git server and a worker for each pool, on one machine.

Every part has a separate home below one folder and listens on a free port of the loopback interface. What is started is
stopped on any exit; what a killed stack left behind is cleaned up by the next one in the same folder.
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
    """The registry's address, ``127.0.0.1:PORT``; it is accessed without TLS."""
    docker_host: str | None
    git: GitServer
    workers: Mapping[str, Worker]
    """The workers by pool name."""
    env: Mapping[str, str] = field(repr=False)
    """An environment for programs other than the workers: the API, the engine, the tools."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """The parts of a stack, and options of its workers."""

    engine: Engine | None = None
    """None starts workers that cannot build."""
    platforms: Sequence[Platform] = PLATFORMS
    toolchain: Toolchain = field(default_factory=Toolchain)
    database: Database = "sqlite"
    """The database of the Prefect server; PostgreSQL comes from Debian's package."""
    deployed: Path | None = None
    """An SQLite database in which `deploy` has already created pools and deployments; copying it saves that time."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """The number of runs that a pool's worker takes at once; unlimited for a pool that is not listed."""
    isolated: bool = False
    """Whether each worker runs in a mount namespace that hides the other folders; requires root."""
    worker_python: bool = True
    """Whether the pools know the workers' Python, which makes runs start sooner (`setup --worker-python`)."""
    poll_seconds: int = 1
    """The interval at which a worker polls for runs."""


@contextlib.contextmanager
def local_stack(folder: Path, options: StackOptions) -> Iterator[Stack]:
    """Start everything, create the pools, deploy the flows, and wait until the workers poll; raise `StackError`."""
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
    """Log that the stack is being stopped, because that takes seconds."""
    try:
        yield
    finally:
        logger().info("stopping the stack")


def _forget(folder: Path) -> None:
    """Remove what an earlier run published, so that it is published again."""
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
    """Start a worker for each pool, in folders below ``folder``, and wait until all of them poll."""
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
    """Create the work pools on a server and deploy the flows of a checkout; raise `StackError`.

    The deployments do not say where the flows come from: each worker has that in its environment.
    """
    logger().info("creating the work pools and deploying the flows")
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
        # It has no bridge, so that it can run next to another engine.
        environment["SOCI_PIPELINE_BUILD_NETWORK"] = "host"
    return environment


def _flows_environment(flows: Served) -> dict[str, str]:
    return {"SOCI_PIPELINE_REPOSITORY": flows.url, "SOCI_PIPELINE_COMMIT": flows.commit}


def _isolation(folder: Path, project: Path, tools: Toolchain, traces: Footprint) -> Isolation:
    if os.geteuid() != 0:
        raise StackError("only root can isolate workers in mount namespaces")
    aside = Path(tempfile.mkdtemp(prefix="soci-aside-"))
    traces.record_folder(aside)
    # Python and the library stay visible: every real worker has them too.
    return Isolation(hide=(project, folder), keep=(Path(sys.prefix), project / "src", tools.folder), aside=aside)
