"""A private Prefect server: separate home, SQLite or PostgreSQL, a free port, and no telemetry."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_stack.ports import LOOPBACK, answers, free_port, wait_until
from soci_pipeline.machine.programs import background

# About 15 s on an idle machine; much longer if all cores are busy.
_START_SECONDS = 300.0
# Prefect's default heartbeat is 180 s. With this value and the automation that `setup` creates, a branch whose machine
# died is marked as crashed 130 s after its last heartbeat.
_HEARTBEAT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class PrefectServer:
    """A Prefect server that answers."""

    api_url: str
    ui_url: str
    env: Mapping[str, str] = field(repr=False)
    """An environment for clients without a home of their own: `client_environment` with the server's home."""


@contextlib.contextmanager
def prefect_server(
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    database: str | None = None,
    deployed: Path | None = None,
) -> Iterator[PrefectServer]:
    """Start a server with its home in ``folder``; raise `StackError`.

    ``database`` is a connection URL without a password (`local_stack.postgres`); the default is SQLite in the home,
    which starts as a copy of the file ``deployed`` if that is given.
    """
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    if database is None:
        _prepare_sqlite(database_of(home), deployed)
    port = free_port()
    base = f"http://{LOOPBACK}:{port}"
    environment = client_environment(f"{base}/api", home, env=env)
    serving = environment | {
        "PREFECT_SERVER_API_HOST": LOOPBACK,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_API_URL": f"{base}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    if database is not None:
        serving["PREFECT_API_DATABASE_CONNECTION_URL"] = database
    log = folder / "server.log"
    log.unlink(missing_ok=True)
    with background([sys.executable, "-m", "prefect", "server", "start"], env=serving, cwd=folder, log=log) as child:
        url = f"{base}/api/health"
        wait_until(lambda: answers(url), what="the Prefect server", child=child, log=log, seconds=_START_SECONDS)
        yield PrefectServer(api_url=f"{base}/api", ui_url=base, env=environment)


def _prepare_sqlite(file: Path, deployed: Path | None) -> None:
    # SQLite gives its additional files the same mode. An empty file is a new database.
    file.touch(mode=0o600)
    file.chmod(0o600)
    if deployed is not None:
        shutil.copyfile(deployed, file)


def database_of(home: Path) -> Path:
    """Return the SQLite file of a server with this home; its write-ahead log is next to it."""
    return home / "prefect.db"


def client_environment(api_url: str, home: Path, *, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment for a process that talks to the server and keeps Prefect's files in ``home``.

    Prefect variables of the machine are removed, so that a profile or key of the user is never used.
    """
    home.mkdir(parents=True, exist_ok=True)
    given = os.environ if env is None else env
    return {name: value for name, value in given.items() if not name.startswith("PREFECT_")} | {
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(home),
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_CLI_COLORS": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(_HEARTBEAT_SECONDS),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
    }
