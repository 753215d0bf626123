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
from soci_pipeline.machine import parent_death
from soci_pipeline.machine.held_signals import HeldSignals

# A program for another machine, or a script whose interpreter is missing or not executable.
_NOT_A_PROGRAM = frozenset({errno.ENOEXEC, errno.ENOENT, errno.EACCES})
_OTHER_MACHINE = "Install it for this machine's architecture, including the interpreter in its first line."
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
    with_parent: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program in a new process group, and end the group after the block.

    With ``with_parent``, the kernel ends the program when the thread that started it dies, even by SIGKILL. The process
    may then be `setpriv` at first: see `parent_death`.
    """
    # A handler that raises between the start and the `try` would leave the program running, so signals are held.
    signals = HeldSignals()
    try:
        signals.hold()
        child = _begin(argv, env, cwd, sink, with_parent=with_parent)
        try:
            signals.release()
            yield child
        finally:
            end_group(child)
    finally:
        signals.release()


def _begin(
    argv: list[str], env: Mapping[str, str], cwd: Path | None, sink: IO[bytes] | int | None, *, with_parent: bool
) -> subprocess.Popen[bytes]:
    command = parent_death.with_parent(argv) if with_parent else argv
    try:
        return subprocess.Popen(
            command or argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE if sink is None else subprocess.DEVNULL,
            stdout=subprocess.PIPE if sink is None else sink,
            stderr=subprocess.PIPE if sink is None else subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_prepared(kernel_ends=command is None),  # noqa: PLW1509 - it makes system calls and nothing else
        )
    except OSError as error:
        if error.errno not in _NOT_A_PROGRAM or not Path(cwd or ".").is_dir():
            raise
        raise cannot_be_started(argv[0], error.strerror) from error


def _prepared(*, kernel_ends: bool) -> Callable[[], None] | None:
    """Return what must run between fork and exec; usually nothing, which lets Python use the much faster vfork."""
    if kernel_ends:
        return _end_with_parent
    # A shell's background job ignores SIGINT and passes that on; the program could not be interrupted.
    return _default_interrupt if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else None


def cannot_be_started(program: str, reason: str | None) -> ToolFailed:
    return ToolFailed(f"{program} cannot be started: {reason}", advice=_OTHER_MACHINE)


def end_group(child: subprocess.Popen[bytes], *, grace: float = _GRACE_SECONDS) -> None:
    """End a child and everything in its process group: SIGTERM, then SIGKILL after ``grace`` seconds.

    Waits until all of it has ended, so that its ports are free, except for processes that stay in the kernel for more
    than another second.
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
    """Whether a process group has a process that has not ended; zombies count as ended."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return any(members(group))


def members(group: int) -> Iterator[Path]:
    """Return the processes of a group that have not ended."""
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal() and _is_of(entry, group))


def _is_of(process: Path, group: int) -> bool:
    try:
        # proc_pid_stat(5): after the name in parentheses, which may contain anything, come state, parent and group.
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
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end_with_parent() -> None:
    _default_interrupt()
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
