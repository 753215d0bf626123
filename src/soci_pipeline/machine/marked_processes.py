"""Find, signal and end processes that carry a mark in their environment, as shown by the kernel.

Child processes inherit the environment, so a mark finds all of them, even if their parents have ended. An unrelated
process never has the mark, so a reused process id is safe.
"""

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# On a busy machine, `exec` has been observed to take 30 ms.
_EXEC_PAUSES = (0.005, 0.02, 0.05, 0.0)
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class MarkedProcess:
    """A process and the environment that it was started with."""

    pid: int
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mark:
    """An environment variable with a unique value."""

    variable: str
    value: str

    def processes(self) -> Iterator[MarkedProcess]:
        """Yield all processes with the mark, except the calling one and zombies."""
        for entry in _PROC.iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                environment = _environment(entry)
                if self._is_in(environment):
                    yield MarkedProcess(int(entry.name), environment)

    def send(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a marked process; do nothing if it has ended or another process has its id now."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            handle = os.pidfd_open(pid)
            try:
                # The handle pins the process, so the id cannot be reused between this check and the signal.
                if self._is_in(_environment(_PROC / str(pid))):
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)

    def end(self, *, grace: float, spared: Collection[int] = ()) -> tuple[int, ...]:
        """Send SIGTERM to all but the ``spared`` ids, and SIGKILL after ``grace`` seconds.

        Returns the ids that still exist after another ``grace`` seconds.
        """
        found = self._ids(spared)
        for pid in found:
            self.send(pid, signal.SIGTERM)
        started = time.monotonic()
        while found and time.monotonic() - started < 2 * grace:
            time.sleep(_LOOK_SECONDS)
            found = self._ids(spared)
            if time.monotonic() - started > grace:
                # Repeated, since a process that is being ended may start another one.
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
    """Return the environment as the kernel shows it: empty for a process that has ended, or briefly during `exec`.

    Prefect's supervisor becomes the engine by `exec`, and so does a shell's last command. Therefore a process that has
    a program but no environment is read again; a process without an environment costs the additional reads.
    """
    found = b""
    for pause in _EXEC_PAUSES:
        try:
            found = (process / "environ").read_bytes()
            # Fails for kernel threads, which therefore are not read again.
            (process / "exe").readlink()
        except OSError:
            break
        if found:
            break
        time.sleep(pause)
    return found
