"""Clean up the folder in which Prefect's worker keeps a run's environment, secrets included.

A worker without a known Python (`soci-pipeline setup --worker-python`) writes ``workspace.json`` into its temporary
folder for the hooks of a run, and removes it when the run has ended. A killed worker leaves it behind. Therefore a run
removes from its own file what hooks do not need, and deletes the files that earlier workers left.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from soci_pipeline.log import logger
from soci_pipeline.machine.marked_processes import Mark
from soci_pipeline.machine.programs import SECRET_VARIABLES
from soci_pipeline.urls import LOGIN_IN_URL

RUN_ID = "PREFECT__FLOW_RUN_ID"
_PREFIX = "prefect-workspace-attempt-"
_CONFIGURATION = "supervisor.json"
_MANIFEST = "workspace.json"
# Hooks only use Prefect's API.
_SECRET = re.compile(
    r"(?!PREFECT_(API|CLIENT|LOGGING|RUNNER|WORKER)_)"
    r".*(PASS|PWD.|.PWD|SECRET|TOKEN|KEY|CREDENTIAL|AUTH|DSN|(DATABASE|CONNECTION|DB)_UR[LI])",
    re.IGNORECASE,
)
_NOT_SECRET = frozenset({"OLDPWD", "SSH_AUTH_SOCK", "GIT_ASKPASS", "SSH_ASKPASS"})
_AFTER_NAME = 2
_START_TIME = 22  # proc_pid_stat(5)


def is_secret(name: str, value: str = "") -> bool:
    """Whether an environment variable holds a secret that hooks do not need.

    It does if its name suggests so, or if it is a URL with a password, except for a proxy needed to reach Prefect.
    """
    if name in SECRET_VARIABLES:
        return True
    if name in _NOT_SECRET or name.lower().endswith("_proxy"):
        return False
    if _SECRET.match(name) is not None:
        return True
    return not name.startswith("PREFECT_API_") and LOGIN_IN_URL.search(value) is not None


def clean_attempt_files(temporary: Path, environment: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Strip secrets from the current run's file and remove what killed workers left; return the removed folders."""
    run_id = (os.environ if environment is None else environment).get(RUN_ID, "")
    worker_started = _start_time(os.getppid())
    removed: list[Path] = []
    for folder in _own_folders(temporary):
        owner = str(_read(folder / _CONFIGURATION).get("flow_run_id", ""))
        if owner and owner == run_id:
            _strip(folder / _MANIFEST)
        elif worker_started is not None and _is_left(folder, owner, worker_started):
            shutil.rmtree(folder, ignore_errors=True)
            logger().info("removed %s, left over from a killed worker", folder)
            removed.append(folder)
    return tuple(removed)


def _own_folders(temporary: Path) -> Iterator[Path]:
    for folder in sorted(temporary.glob(f"{_PREFIX}*")):
        with contextlib.suppress(FileNotFoundError):
            if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
                yield folder


def _is_left(folder: Path, owner: str, worker_started: float) -> bool:
    """Whether a folder was left behind: it is older than this run's worker, and its run has no processes."""
    try:
        made = folder.stat().st_mtime
    except FileNotFoundError:
        return False
    return made < worker_started and (not owner or next(Mark(RUN_ID, owner).processes(), None) is None)


def _strip(manifest: Path) -> None:
    document = _read(manifest)
    environment = document.get("environment")
    if not isinstance(environment, dict):
        return
    kept = {name: value for name, value in environment.items() if not is_secret(name, str(value))}
    if kept == environment:
        return
    document["environment"] = kept
    made = manifest.parent.stat().st_mtime
    # Created with mode 0600 and replaced atomically: the worker may read it at any time.
    handle, fresh = tempfile.mkstemp(prefix=".stripped-", dir=manifest.parent)
    with os.fdopen(handle, "w") as file:
        json.dump(document, file)
    Path(fresh).replace(manifest)
    # Keep the folder's time, the start of the attempt, which `_is_left` reads.
    os.utime(manifest.parent, (made, made))


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object written by Prefect; empty if it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _start_time(pid: int) -> float | None:
    """Return the latest time at which a process can have started, as Unix time; None if it is unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        ticks = int(fields[_START_TIME - _AFTER_NAME - 1])
        # The kernel reports the boot time in whole seconds, rounded down.
        return int(boot.split()[1]) + 1 + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return None
