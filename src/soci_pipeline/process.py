"""The one door to other programs.

argv is always a list, is logged with secrets left out (none may be in it in the first place), and is resolved on the
PATH of the environment that is given. Output is streamed to the logger line by line; an error carries the program's
name, its exit status or signal, and its last lines. A child runs in a process group of its own, and the whole group is
ended when the ``with`` block or call is left by an exception, a cancellation included. No program inherits the secrets
that this process may have in its environment.

A call ends with its program. What the program leaves running in its process group is ended then; a daemon, which has
made a session of its own (ssh's shared connection, a helper that remembers credentials), lives on, and that it still
has the output open holds nobody up.

A program that `run` starts may have `MAX_PROCESSES` processes in its group; beyond that the whole group is killed. It
stops programs that start copies of themselves without end. RLIMIT_NPROC cannot do that: it counts everything the user
runs, and does not apply to root.
"""

import contextlib
import ctypes
import errno
import fcntl
import io
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from soci_pipeline.errors import DeadlineExceeded, ToolFailed, ToolMissing
from soci_pipeline.log import logger

SECRET_VARIABLES = (
    "SOCI_PIPELINE_REGISTRY_USERNAME",
    "SOCI_PIPELINE_REGISTRY_PASSWORD",
    "SOCI_PIPELINE_REGISTRY_TOKEN",
    "COSIGN_PASSWORD",
    "SIGSTORE_ID_TOKEN",
)
"""What this process may be given secrets by, and the user's name, which means nothing without the password.

Whatever program needs one is handed it in another way.
"""

MAX_PROCESSES = 256
"""How many processes a program that `run` starts may have in its process group."""

# A program for another machine, or a script whose interpreter is missing or may not be executed.
_NOT_A_PROGRAM = frozenset({errno.ENOEXEC, errno.ENOENT, errno.EACCES})
_OTHER_MACHINE = "Install it for this machine's architecture, with the interpreter that its first line names."
_SECRETS: ContextVar[tuple[str, ...]] = ContextVar("_SECRETS", default=())
# Shorter lines of a secret are words that stand in any output.
_SHORTEST_SECRET = 4
_CONCEALED = "***"
_TAIL_LINES = 30
_GRACE_SECONDS = 10.0
_KILLED_SECONDS = 1.0
_LOOK_SECONDS = 0.005
_COUNT_SECONDS = 0.5
# For the last words of what a program has left running.
_LAST_WORDS_SECONDS = 1.0
_INT_BYTES = 4


class TooManyProcesses(ToolFailed):
    """A program started more processes than it may have; all of them were killed."""

    default_advice = "If the program really needs so many processes, report it; otherwise look for what it repeats."


class TooMuchOutput(ToolFailed):
    """A program printed more than its caller takes; it was killed, and nothing of it was kept."""

    default_advice = "Run the program by hand to see what it prints."


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended: its whole standard output, the tail of its standard error, and its exit status."""

    stdout: str
    stderr_tail: str
    status: int = 0
    """Negative for a signal; never anything but 0 unless `run` was called with ``check=False``."""


@contextlib.contextmanager
def concealing(secrets: Iterable[bytes]) -> Iterator[None]:
    """What programs print in this block shows none of these secrets, neither in the log nor in an answer or error.

    A step of a build can print what it was trusted with. Every line of a secret is looked for, as it is: not what a
    program has made of it, and no line shorter than four characters.
    """
    lines = {line.strip() for secret in secrets for line in secret.decode(errors="replace").splitlines()}
    found = sorted((line for line in lines if len(line) >= _SHORTEST_SECRET), key=len, reverse=True)
    token = _SECRETS.set((*_SECRETS.get(), *found))
    try:
        yield
    finally:
        _SECRETS.reset(token)


def find(program: str, *, package: str | None = None, env: Mapping[str, str] | None = None) -> Path:
    """The full path of a program; raises `ToolMissing` with the package that brings it."""
    path = (os.environ if env is None else env).get("PATH", os.defpath)
    found = shutil.which(program, path=path)
    if found is None:
        raise ToolMissing(
            f"the program {program!r} is not on the PATH",
            advice=f"Install the package {package or program}, or add its folder to PATH.",
        )
    return Path(found)


def run(
    argv: Sequence[str | Path],
    *,
    package: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,
    stream: bool = False,
    max_processes: int = MAX_PROCESSES,
    max_output: int | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end and return what it printed.

    ``stream`` logs each line of both outputs as it comes. ``timeout`` is in seconds. What the program leaves running
    is listened to for a second more, within the timeout. Raises `ToolMissing`, `ToolFailed`
    for an exit status other than 0 or a signal unless ``check`` is false, `DeadlineExceeded`, `TooManyProcesses` beyond
    ``max_processes``, and `TooMuchOutput` for an output of more than ``max_output`` bytes.
    """
    program = find(str(argv[0]), package=package, env=env)
    name = Path(str(argv[0])).name
    logger().debug("run: %s", shlex.join(str(part) for part in argv))
    output, tail = _Collector(keep=None, limit=max_output), _Collector(keep=_TAIL_LINES, limit=max_output)
    # The pipes are read until the whole group has ended, so that none of it can hang on a full one.
    with (
        contextlib.ExitStack() as pipes,
        _started(
            [str(program), *map(str, argv[1:])], env=_without_secrets(env), cwd=cwd, prepare=_end_with_parent
        ) as child,
    ):
        report = _reporter(stream=stream)
        readers = [
            pipes.enter_context(_reading(child.stdout, output, report)),
            pipes.enter_context(_reading(child.stderr, tail, report)),
        ]
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            _feed(child, stdin, deadline)
            _wait(child, name, deadline, max_processes, (output, tail))
        except TimeoutError as error:
            raise DeadlineExceeded(f"{name} did not end within {timeout:g} s and was stopped") from error
        _await_last_words(readers, deadline)
    _check_amount(name, (output, tail))
    last = tail.text() or output.tail(_TAIL_LINES)
    if check and child.returncode != 0:
        raise ToolFailed(f"{name} {_ending(child.returncode)}\n{last}".rstrip(), advice=None)
    return Completed(stdout=output.text(), stderr_tail=last, status=child.returncode)


@contextlib.contextmanager
def background(
    argv: Sequence[str | Path],
    *,
    package: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program, and end it with its whole process group when the block is left.

    Its output goes to the file ``log``, or nowhere. It gets SIGTERM, and SIGKILL after ten seconds.
    """
    program = find(str(argv[0]), package=package, env=env)
    logger().debug("start: %s", shlex.join(str(part) for part in argv))
    with contextlib.ExitStack() as stack:
        sink: IO[bytes] | int = subprocess.DEVNULL if log is None else stack.enter_context(log.open("ab"))
        command = [str(program), *map(str, argv[1:])]
        yield stack.enter_context(_started(command, env=_without_secrets(env), cwd=cwd, sink=sink))


def _without_secrets(env: Mapping[str, str] | None) -> dict[str, str]:
    given = os.environ if env is None else env
    return {name: value for name, value in given.items() if name not in SECRET_VARIABLES}


@contextlib.contextmanager
def _started(
    argv: list[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    sink: IO[bytes] | int | None = None,
    prepare: Callable[[], None] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    out = subprocess.PIPE if sink is None else sink
    try:
        child = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE if sink is None else subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE if sink is None else subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=prepare or _default_interrupt,  # noqa: PLW1509 - they make system calls and nothing else
        )
    except OSError as error:
        if error.errno not in _NOT_A_PROGRAM or not Path(cwd or ".").is_dir():
            raise
        raise ToolFailed(f"{argv[0]} cannot be started: {error.strerror}", advice=_OTHER_MACHINE) from error
    try:
        yield child
    finally:
        end_group(child)


def end_group(child: subprocess.Popen[bytes], *, grace: float = _GRACE_SECONDS) -> None:
    """End a child and everything in its process group: SIGTERM, then SIGKILL after ``grace`` seconds.

    All of it has ended then, so that its ports are free, but for what hangs in the kernel longer than another second.
    """
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            logger().warning("process %d did not end on SIGTERM within %g s; killing it", child.pid, grace)
    _signal_group(child.pid, signal.SIGKILL)
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
    return any(_members(group))


def _members(group: int) -> Iterator[Path]:
    """The processes of a group that have not ended."""
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal() and _is_of(entry, group))


def _is_of(process: Path, group: int) -> bool:
    try:
        # proc_pid_stat(5): after the name in parentheses, which may hold anything, come state, parent and group.
        state, _, found = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()[:3]
    except (OSError, ValueError):
        return False
    return int(found) == group and state not in "ZX"


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def _default_interrupt() -> None:
    # A shell's background job ignores SIGINT and hands that on; a program that never sees it could not be stopped.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end_with_parent() -> None:
    """Let the kernel end the child when the thread that waits for it dies, be it by SIGKILL (prctl(2))."""
    _default_interrupt()
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _left(deadline: float | None) -> float | None:
    """Seconds until a moment of the monotonic clock, none of them negative; None for no deadline."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _wait(
    child: subprocess.Popen[bytes],
    name: str,
    deadline: float | None,
    max_processes: int,
    outputs: Sequence["_Collector"],
) -> None:
    """Wait for a program to end; raises `TimeoutError` at the deadline, `TooManyProcesses`, and `TooMuchOutput`."""
    while True:
        left = _left(deadline)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_COUNT_SECONDS if left is None else min(left, _COUNT_SECONDS))
            return
        _check_amount(name, outputs)
        if sum(1 for _ in _members(child.pid)) > max_processes:
            # No SIGTERM first: in the time that it takes, more would be started.
            _signal_group(child.pid, signal.SIGKILL)
            raise TooManyProcesses(f"{name} started more than {max_processes} processes and was killed")
        if _left(deadline) == 0:
            raise TimeoutError


def _feed(child: subprocess.Popen[bytes], data: bytes | None, deadline: float | None) -> None:
    """Write a program's whole input; raises `TimeoutError` where it does not take it in time."""
    if child.stdin is None:
        return
    # A program that ends without reading its input is judged by its exit status, not by the broken pipe.
    with child.stdin as pipe, contextlib.suppress(BrokenPipeError):
        os.set_blocking(pipe.fileno(), False)
        poller = select.poll()
        poller.register(pipe, select.POLLOUT)
        rest = memoryview(data or b"")
        while rest:
            left = _left(deadline)
            if not poller.poll(None if left is None else left * 1000):
                raise TimeoutError
            rest = rest[os.write(pipe.fileno(), rest) :]


def _check_amount(name: str, outputs: Sequence["_Collector"]) -> None:
    for output in outputs:
        if output.is_full:
            raise TooMuchOutput(f"{name} printed more than {output.limit} bytes")


class _Collector:
    """The lines of an output, or the last ``keep`` of them; none any more once it has had more than ``limit`` bytes."""

    def __init__(self, *, keep: int | None, limit: int | None = None) -> None:
        self._lines: deque[str] = deque(maxlen=keep)
        self._received = 0
        self.limit = limit
        self.is_full = False

    def takes(self, raw: bytes) -> bool:
        """Count what was read, and return whether it is within the limit."""
        self._received += len(raw)
        if self.limit is not None and self._received > self.limit:
            self.is_full = True
            self._lines.clear()
        return not self.is_full

    def add(self, line: str) -> None:
        self._lines.append(line)

    def text(self) -> str:
        return "".join(self._lines)

    def tail(self, count: int) -> str:
        return "".join(list(self._lines)[-count:])


def _reporter(*, stream: bool) -> Callable[[str], None]:
    # Threads do not inherit the context, so the logger is taken here.
    sink = logger()

    def report(line: str) -> None:
        if stream and line.strip():
            sink.info("%s", line.rstrip())

    return report


class _Pipe(io.RawIOBase):
    """A pipe that ends when all have closed it, or with what was in it when there was enough of it.

    A program that has ended can have left another one that keeps the pipe open, and may even go on printing.
    """

    def __init__(self, pipe: IO[bytes], enough: int) -> None:
        self._pipe = pipe.fileno()
        self._enough = enough
        self._left: int | None = None
        self._poller = select.poll()
        self._poller.register(self._pipe, select.POLLIN)
        self._poller.register(enough, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left is None and any(file == self._enough for file, _ in self._poller.poll()):
            self._left = self._waiting()
        if self._left is None:
            return os.readv(self._pipe, [buffer])
        if self._left == 0:
            return 0
        count = os.readv(self._pipe, [memoryview(buffer)[: self._left]])
        self._left -= count
        return count

    def _waiting(self) -> int:
        """How many bytes are in the pipe now."""
        answer = fcntl.ioctl(self._pipe, termios.FIONREAD, bytes(_INT_BYTES))
        return int.from_bytes(answer, sys.byteorder)


@contextlib.contextmanager
def _reading(
    pipe: IO[bytes] | None, collector: _Collector, report: Callable[[str], None]
) -> Iterator[threading.Thread]:
    """Read a pipe in a thread; what is in it when the block is left is still read, and then it is closed."""
    if pipe is None:
        raise ValueError("the program was started without pipes")
    secrets = _SECRETS.get()  # threads do not inherit the context
    enough = os.eventfd(0)

    def read() -> None:
        source = io.BufferedReader(_Pipe(pipe, enough))
        # With a limit, a line is never read further than that; what is cut then is not kept, so no secret is cut.
        at_once = -1 if collector.limit is None else collector.limit + 1
        while raw := source.readline(at_once):
            if not collector.takes(raw):
                continue
            line = raw.decode(errors="replace")
            for secret in secrets:
                line = line.replace(secret, _CONCEALED)
            collector.add(line)
            report(line)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        os.eventfd_write(enough, 1)
        thread.join()
        os.close(enough)
        pipe.close()


def _await_last_words(readers: Iterable[threading.Thread], deadline: float | None) -> None:
    until = time.monotonic() + _LAST_WORDS_SECONDS
    for reader in readers:
        reader.join(_left(until if deadline is None else min(until, deadline)))


def _ending(status: int) -> str:
    if status < 0:
        try:
            return f"was ended by {signal.Signals(-status).name}"
        except ValueError:
            return f"was ended by signal {-status}"
    return f"ended with exit status {status}"
