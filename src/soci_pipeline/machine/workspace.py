"""The folder of one run on a worker, and the reaper for what killed runs left behind.

A run owns its folder for as long as it holds the lock in it (`soci_pipeline.machine.working_folder`); the kernel lets
go of the lock when the process dies, however it dies. So a lock that can be had means that nobody needs the folder any
more, nor the processes that carry its path in their environment. Live runs are never touched. The temporary files of a
run and of the programs that it starts, credentials for git among them, lie in its folder and go the same way. What
Prefect's worker keeps of the run's environment lies elsewhere (`soci_pipeline.machine.attempt_files`).
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from soci_pipeline.errors import InvalidInput, StackError
from soci_pipeline.log import logger
from soci_pipeline.machine import attempt_files, reaper
from soci_pipeline.machine.marked_processes import Mark
from soci_pipeline.machine.reaper import Remover
from soci_pipeline.machine.working_folder import PREFIX, abandoned, working_folder

RUN_VARIABLE = "SOCI_PIPELINE_RUN"
"""Names the run's folder in the environment of everything that the run starts."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,99}\Z")
_GRACE_SECONDS = 5.0


@contextlib.contextmanager
def workspace(root: Path, name: str, removers: Mapping[str, Remover]) -> Iterator[Path]:
    """An empty folder for one run, removed when the block is left; first, what killed runs left under ``root`` goes.

    ``name`` is for people who look into ``root``, ``removers`` are those of `reaper.reap`.
    Raises `InvalidInput` for a name that cannot be part of a folder's name.
    """
    if not _NAME.match(name):
        raise InvalidInput(f"not a name for a run's folder: {name[:100]!r}")
    runs = _private(root)
    reap(root, removers)
    # Before the run has a temporary folder of its own: it is the worker's.
    attempt_files.tidy(Path(tempfile.gettempdir()))
    with working_folder(runs, purpose=name) as folder:
        temporary = folder / "tmp"
        temporary.mkdir(mode=0o700)
        with _environment({RUN_VARIABLE: str(folder), "TMPDIR": str(temporary)}):
            yield folder


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for this block, for this process and what it starts."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    # Python looks TMPDIR up once and keeps it.
    kept, tempfile.tempdir = tempfile.tempdir, None
    try:
        yield
    finally:
        tempfile.tempdir = kept
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def reap(root: Path, removers: Mapping[str, Remover]) -> tuple[Path, ...]:
    """End the processes of runs that are no more, and remove their builders and folders; returns the folders."""
    runs = root / "runs"
    for folder in sorted(runs.glob(f"{PREFIX}*")):
        with abandoned(folder) as gone:
            if gone:
                _end_processes(folder)
    return reaper.reap(runs, removers).folders if runs.is_dir() else ()


def _private(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    if root.stat().st_uid != os.getuid():
        raise StackError(f"the working folder {root} belongs to another user", advice="Set SOCI_PIPELINE_WORK_FOLDER.")
    runs = root / "runs"
    runs.mkdir(exist_ok=True, mode=0o700)
    return runs


def _end_processes(folder: Path) -> None:
    mark = Mark(RUN_VARIABLE, str(folder))
    spared = {os.getpid(), os.getppid()}
    found = [process.pid for process in mark.processes() if process.pid not in spared]
    if not found:
        return
    logger().info("ending processes %s of a run that was killed", ", ".join(map(str, found)))
    left = mark.end(grace=_GRACE_SECONDS, spared=spared)
    if left:
        logger().warning("processes %s do not end, though they were killed", ", ".join(map(str, left)))
