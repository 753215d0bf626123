"""The folder of one run on a worker, and the cleanup of what killed runs left behind.

A run owns its folder while it holds the lock in it (`soci_pipeline.machine.working_folder`); the kernel releases the
lock when the process dies, for whatever reason. So if the lock is free, nothing needs the folder any more, nor the
processes that carry its path in their environment. Live runs are never touched. The temporary files of a run and of the
programs that it starts, git credentials included, are in its folder and are removed with it. Prefect's worker keeps the
run's environment elsewhere (`soci_pipeline.machine.attempt_files`).
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
"""Holds the path of the run's folder in the environment of everything that the run starts."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,99}\Z")
_GRACE_SECONDS = 5.0


@contextlib.contextmanager
def workspace(root: Path, name: str, removers: Mapping[str, Remover]) -> Iterator[Path]:
    """Create an empty folder for one run; remove it after the block. Leftovers of killed runs are removed first.

    ``name`` is shown in the folder's name, for people; ``removers`` are those of `reaper.reap`. Raises `InvalidInput`
    for a name that cannot be part of a folder's name.
    """
    if not _NAME.match(name):
        raise InvalidInput(f"not a valid name for a run's folder: {name[:100]!r}")
    runs = _private(root)
    reap(root, removers)
    # Before the run has its own temporary folder, because this uses the worker's.
    attempt_files.clean_attempt_files(Path(tempfile.gettempdir()))
    with working_folder(runs, purpose=name) as folder:
        temporary = folder / "tmp"
        temporary.mkdir(mode=0o700)
        with _environment({RUN_VARIABLE: str(folder), "TMPDIR": str(temporary)}):
            yield folder


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables in the block, for this process and its children."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    # Python reads TMPDIR once and caches it.
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
    """End the processes of killed runs, and remove their builders and folders; return the folders."""
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
    logger().info("ending processes %s of a killed run", ", ".join(map(str, found)))
    left = mark.end(grace=_GRACE_SECONDS, spared=spared)
    if left:
        logger().warning("processes %s are still running after SIGKILL", ", ".join(map(str, left)))
