"""The only module that starts other programs.

argv is always a list, is logged (it must not contain secrets), and is resolved on the PATH of the given environment.
Output is streamed to the logger line by line; an error contains the program's name, its exit status or signal, and its
last lines. A child runs in a new process group, and the whole group is ended when an exception, cancellation included,
leaves the ``with`` block or call. No program inherits the secrets in this process's environment.

A call ends with its program. What the program leaves running in its process group is ended then. A daemon that has
created its own session (ssh's shared connection, a helper that caches credentials) keeps running; that it still has the
output open delays nothing.

A program started by `run` may have `MAX_PROCESSES` processes in its group; beyond that the whole group is killed. This
stops programs that start copies of themselves without end. RLIMIT_NPROC cannot do that: it counts everything the user
runs, and does not apply to root.
"""

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from soci_pipeline.errors import DeadlineExceeded, ToolFailed, ToolMissing
from soci_pipeline.log import logger
from soci_pipeline.machine.parent_death import not_executed
from soci_pipeline.machine.process_groups import cannot_be_started, members, signal_group, started
from soci_pipeline.machine.program_output import Collector, await_last_words, reading, reporter, seconds_until

SECRET_VARIABLES = (
    "SOCI_PIPELINE_REGISTRY_USERNAME",
    "SOCI_PIPELINE_REGISTRY_PASSWORD",
    "SOCI_PIPELINE_REGISTRY_TOKEN",
    "COSIGN_PASSWORD",
    "SIGSTORE_ID_TOKEN",
)
"""Variables through which this process may receive secrets, and the user name, which is useless without the password.

A program that needs one receives it in another way.
"""

MAX_PROCESSES = 256
"""The maximum number of processes in the process group of a program started by `run`."""

_TAIL_LINES = 30
_COUNT_SECONDS = 0.5


class TooManyProcesses(ToolFailed):
    """A program started more processes than allowed; all of them were killed."""

    default_advice = "If the program really needs that many processes, report it; otherwise find out what it repeats."


class TooMuchOutput(ToolFailed):
    """A program printed more than allowed; it was killed, and its output was discarded."""

    default_advice = "Run the program by hand to see what it prints."


@dataclass(frozen=True, slots=True)
class Completed:
    """The result of a program: its whole standard output, the tail of its standard error, and its exit status."""

    stdout: str
    stderr_tail: str
    status: int = 0
    """Negative for a signal; always 0 unless `run` was called with ``check=False``."""


def find(program: str, *, package: str | None = None, env: Mapping[str, str] | None = None) -> Path:
    """Return the full path of a program; raise `ToolMissing`, which names the package to install."""
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

    ``stream`` logs each line of both outputs as it arrives. ``timeout`` is in seconds. Output of processes that the
    program leaves running is read for one more second, within the timeout. Raises `ToolMissing`, `ToolFailed` for a
    signal or an exit status other than 0 (unless ``check`` is false), `DeadlineExceeded`, `TooManyProcesses` beyond
    ``max_processes``, and `TooMuchOutput` for more than ``max_output`` bytes.
    """
    program = find(str(argv[0]), package=package, env=env)
    name = Path(str(argv[0])).name
    logger().debug("run: %s", shlex.join(str(part) for part in argv))
    output, tail = Collector(keep=None, limit=max_output), Collector(keep=_TAIL_LINES, limit=max_output)
    # The pipes are read until the whole group has ended, so that no process blocks on a full pipe.
    with (
        contextlib.ExitStack() as pipes,
        started([str(program), *map(str, argv[1:])], env=_without_secrets(env), cwd=cwd, with_parent=True) as child,
    ):
        report = reporter(stream=stream)
        readers = [
            pipes.enter_context(reading(child.stdout, output, report)),
            pipes.enter_context(reading(child.stderr, tail, report)),
        ]
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            _feed(child, stdin, deadline)
            _wait(child, name, deadline, max_processes, (output, tail))
        except TimeoutError as error:
            raise DeadlineExceeded(f"{name} did not finish within {timeout:g} s and was stopped") from error
        await_last_words(readers, deadline)
    _check_amount(name, (output, tail))
    if (reason := not_executed(str(program), child.returncode, tail.text())) is not None:
        raise cannot_be_started(str(program), reason)
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
    """Start a program, and end it with its whole process group after the block.

    Its output goes to the file ``log``, or is discarded. It gets SIGTERM, then SIGKILL after ten seconds.
    """
    program = find(str(argv[0]), package=package, env=env)
    logger().debug("start: %s", shlex.join(str(part) for part in argv))
    with contextlib.ExitStack() as stack:
        sink: IO[bytes] | int = subprocess.DEVNULL if log is None else stack.enter_context(log.open("ab"))
        command = [str(program), *map(str, argv[1:])]
        yield stack.enter_context(started(command, env=_without_secrets(env), cwd=cwd, sink=sink))


def _without_secrets(env: Mapping[str, str] | None) -> dict[str, str]:
    given = os.environ if env is None else env
    return {name: value for name, value in given.items() if name not in SECRET_VARIABLES}


def _wait(
    child: subprocess.Popen[bytes],
    name: str,
    deadline: float | None,
    max_processes: int,
    outputs: Sequence["Collector"],
) -> None:
    """Wait for a program to end; raise `TimeoutError` at the deadline, `TooManyProcesses` or `TooMuchOutput`."""
    while True:
        left = seconds_until(deadline)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_COUNT_SECONDS if left is None else min(left, _COUNT_SECONDS))
            return
        _check_amount(name, outputs)
        if sum(1 for _ in members(child.pid)) > max_processes:
            # No SIGTERM first: more processes would be started in the meantime.
            signal_group(child.pid, signal.SIGKILL)
            raise TooManyProcesses(f"{name} started more than {max_processes} processes and was killed")
        if seconds_until(deadline) == 0:
            raise TimeoutError


def _feed(child: subprocess.Popen[bytes], data: bytes | None, deadline: float | None) -> None:
    """Write a program's whole input; raise `TimeoutError` if it does not read it in time."""
    if child.stdin is None:
        return
    # A program that ends without reading its input is judged by its exit status, not by the broken pipe.
    with child.stdin as pipe, contextlib.suppress(BrokenPipeError):
        os.set_blocking(pipe.fileno(), False)
        poller = select.poll()
        poller.register(pipe, select.POLLOUT)
        rest = memoryview(data or b"")
        while rest:
            left = seconds_until(deadline)
            if not poller.poll(None if left is None else left * 1000):
                raise TimeoutError
            rest = rest[os.write(pipe.fileno(), rest) :]


def _check_amount(name: str, outputs: Sequence["Collector"]) -> None:
    for output in outputs:
        if output.is_full:
            raise TooMuchOutput(f"{name} printed more than {output.limit} bytes")


def _ending(status: int) -> str:
    if status < 0:
        try:
            return f"was ended by {signal.Signals(-status).name}"
        except ValueError:
            return f"was ended by signal {-status}"
    return f"ended with exit status {status}"
