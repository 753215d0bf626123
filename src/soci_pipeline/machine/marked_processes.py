"""Processes that carry a mark in their environment: found, signalled and ended by what the kernel shows of them.

What a program starts inherits its environment, so a mark finds all of it, whatever became of the parents. A foreign
process never has the mark, so a process id that was given out again is safe.
"""

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# On a busy machine, `exec` has been seen to take 30 ms there.
_EXEC_PAUSES = (0.005, 0.02, 0.05, 0.0)
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class MarkedProcess:
    """A process, and the environment that it was started with."""

    pid: int
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mark:
    """An environment variable with a value that nobody else gives it."""

    variable: str
    value: str

    def processes(self) -> Iterator[MarkedProcess]:
        """All that have the mark, without the calling process; one that only waits to be collected does not count."""
        for entry in _PROC.iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                environment = _environment(entry)
                if self._is_in(environment):
                    yield MarkedProcess(int(entry.name), environment)

    def send(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process that was found; nothing happens where it has ended or its id is another's now."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            handle = os.pidfd_open(pid)
            try:
                # The handle pins the process; only now is it sure that the id was not given to another one.
                if self._is_in(_environment(_PROC / str(pid))):
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)

    def end(self, *, grace: float, spared: Collection[int] = ()) -> tuple[int, ...]:
        """SIGTERM to all but the ``spared`` ids, and SIGKILL after ``grace`` seconds.

        Returns the ids of those that are still there after as long again.
        """
        found = self._ids(spared)
        for pid in found:
            self.send(pid, signal.SIGTERM)
        started = time.monotonic()
        while found and time.monotonic() - started < 2 * grace:
            time.sleep(_LOOK_SECONDS)
            found = self._ids(spared)
            if time.monotonic() - started > grace:
                # Again and again, since a process may be started by one that is being ended.
                for pid in found:
                    self.send(pid, signal.SIGKILL)
        return found

    def _ids(self, spared: Collection[int]) -> tuple[int, ...]:
        return tuple(process.pid for process in self.processes() if process.pid not in spared)

    def _is_in(self, environment: Mapping[str, str]) -> bool:
        return environment.get(self.variable) == self.value


def _environment(process: Path) -> dict[str, str]:
    words = os.fsdecode(_environment_bytes(process)).split("\0")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _environment_bytes(process: Path) -> bytes:
    """What the kernel shows of it: nothing for a process that has ended, and for a moment of one that runs `exec`.

    Prefect's supervisor becomes the engine by `exec`, and a shell's last command often takes its place. So a process
    that has a program and no environment is looked at again; one that really has none costs a look more.
    """
    found = b""
    for pause in _EXEC_PAUSES:
        try:
            found = (process / "environ").read_bytes()
            # Fails for the kernel's own threads, and with them the second look.
            (process / "exe").readlink()
        except OSError:
            break
        if found:
            break
        time.sleep(pause)
    return found
