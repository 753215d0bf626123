"""The folder of one run on a worker, and the reaper for what killed runs left behind.

A run owns ``<root>/<id>`` for as long as it holds the lock beside it; the kernel lets go of the lock when the process
dies, however it dies. So a lock that can be had means that nobody needs the folder any more, and neither the processes
that carry the folder's path in their environment. Live runs are never touched.
"""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from soci_pipeline.errors import InvalidInput, StackError
from soci_pipeline.process import logger

RUN_VARIABLE = "SOCI_PIPELINE_RUN"
"""Names the run's folder in the environment of everything that the run starts."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_LOCK = ".lock"
_GRACE_SECONDS = 5.0


@contextlib.contextmanager
def workspace(root: Path, run_id: str, *, keep: bool = False) -> Iterator[Path]:
    """An empty folder for one run, removed when the block is left; first, what killed runs left under ``root`` goes.

    Raises `InvalidInput` for an id that cannot be a folder's name, `StackError` where the id is in use.
    """
    if not _ID.match(run_id):
        raise InvalidInput(f"not an id of a run: {run_id[:100]!r}")
    runs = _private(root)
    reap(root)
    folder = runs / run_id
    with _held(runs / f"{run_id}{_LOCK}") as locked:
        if not locked:
            raise StackError(f"the run {run_id} is going on already in {folder}")
        _clear(folder)
        folder.mkdir()
        before = os.environ.get(RUN_VARIABLE)
        os.environ[RUN_VARIABLE] = str(folder)
        try:
            yield folder
        finally:
            _restore(before)
            if not keep:
                _clear(folder)
                (runs / f"{run_id}{_LOCK}").unlink(missing_ok=True)


def reap(root: Path) -> tuple[str, ...]:
    """End the processes and remove the folders of runs that are no more; returns their ids."""
    runs = root / "runs"
    gone = []
    for path in sorted(runs.glob(f"*{_LOCK}")):
        run_id = path.name.removesuffix(_LOCK)
        with _held(path) as locked:
            if not locked:
                continue
            folder = runs / run_id
            _end_processes(folder)
            _clear(folder)
            path.unlink(missing_ok=True)
            logger().info("removed what the killed run %s had left in %s", run_id, folder)
            gone.append(run_id)
    return tuple(gone)


def _private(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    if root.stat().st_uid != os.getuid():
        raise StackError(f"the working folder {root} belongs to another user", advice="Set SOCI_PIPELINE_WORK_FOLDER.")
    runs = root / "runs"
    runs.mkdir(exist_ok=True, mode=0o700)
    return runs


@contextlib.contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Whether the lock could be had; it is held for the block then."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        # A reaper may have removed the file between our opening and our locking of it: such a lock guards nothing.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                yield True
                return
        yield False
    finally:
        os.close(handle)


def _clear(folder: Path) -> None:
    if folder.is_symlink() or not folder.exists():
        return
    # A build may have left folders without write permission, which rmtree cannot empty.
    for parent, names, _ in os.walk(folder):
        for name in names:
            child = Path(parent) / name
            if not child.is_symlink():
                child.chmod(0o700)
    shutil.rmtree(folder)


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop(RUN_VARIABLE, None)
    else:
        os.environ[RUN_VARIABLE] = before


def _end_processes(folder: Path) -> None:
    found = _processes_of(folder)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, number)
        deadline = time.monotonic() + _GRACE_SECONDS
        while found and time.monotonic() < deadline:
            time.sleep(0.05)
            found = _processes_of(folder)
        if not found:
            return


def _processes_of(folder: Path) -> list[int]:
    mark = f"{RUN_VARIABLE}={folder}".encode()
    spared = {os.getpid(), os.getppid()}
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) in spared:
            continue
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found
