"""Process groups: each program starts in a new one, and the whole group is ended together."""

import contextlib
import ctypes
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from soci_pipeline.errors import ToolFailed
from soci_pipeline.log import logger

# A program for another machine, or a script whose interpreter is missing or may not be executed.
_NOT_A_PROGRAM = frozenset({errno.ENOEXEC, errno.ENOENT, errno.EACCES})
_OTHER_MACHINE = "Install it for this machine's architecture, with the interpreter that its first line names."
# What a process is asked to end by, for which its program may have a handler that raises.
_RAISING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE_SECONDS = 10.0
_KILLED_SECONDS = 1.0
_LOOK_SECONDS = 0.005


@contextlib.contextmanager
def started(
    argv: list[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    sink: IO[bytes] | int | None = None,
    prepare: Callable[[], None] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    # A handler that raises between the start and the `try` would leave the program running: its signal waits.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _RAISING)
    try:
        child = _begin(argv, env, cwd, sink, prepare or _default_interrupt, mask)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            yield child
        finally:
            end_group(child)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin(
    argv: list[str],
    env: Mapping[str, str],
    cwd: Path | None,
    sink: IO[bytes] | int | None,
    prepare: Callable[[], None],
    mask: set[int | signal.Signals],
) -> subprocess.Popen[bytes]:
    def prepared() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        prepare()

    try:
        return subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE if sink is None else subprocess.DEVNULL,
            stdout=subprocess.PIPE if sink is None else sink,
            stderr=subprocess.PIPE if sink is None else subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=prepared,  # noqa: PLW1509 - it makes system calls and nothing else
        )
    except OSError as error:
        if error.errno not in _NOT_A_PROGRAM or not Path(cwd or ".").is_dir():
            raise
        raise ToolFailed(f"{argv[0]} cannot be started: {error.strerror}", advice=_OTHER_MACHINE) from error


def end_group(child: subprocess.Popen[bytes], *, grace: float = _GRACE_SECONDS) -> None:
    """End a child and everything in its process group: SIGTERM, then SIGKILL after ``grace`` seconds.

    All of it has ended then, so that its ports are free, but for what hangs in the kernel longer than another second.
    """
    if child.poll() is None:
        signal_group(child.pid, signal.SIGTERM)
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            logger().warning("process %d did not end on SIGTERM within %g s; killing it", child.pid, grace)
    signal_group(child.pid, signal.SIGKILL)
    child.wait()
    deadline = time.monotonic() + _KILLED_SECONDS
    while _runs(child.pid) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)


def _runs(group: int) -> bool:
    """Whether a process group has a process that has not ended; one that only waits to be collected has."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return any(members(group))


def members(group: int) -> Iterator[Path]:
    """The processes of a group that have not ended."""
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal() and _is_of(entry, group))


def _is_of(process: Path, group: int) -> bool:
    try:
        # proc_pid_stat(5): after the name in parentheses, which may hold anything, come state, parent and group.
        state, _, found = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()[:3]
    except (OSError, ValueError):
        return False
    return int(found) == group and state not in "ZX"


def signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _default_interrupt() -> None:
    # A shell's background job ignores SIGINT and hands that on; a program that never sees it could not be stopped.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_with_parent() -> None:
    """Let the kernel end the child when the thread that waits for it dies, be it by SIGKILL (prctl(2))."""
    _default_interrupt()
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
