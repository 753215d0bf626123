"""The worker of this machine and the flow runs that it executes, as the kernel shows them.

What belongs to the machine's worker has its working folder in the environment (``SOCI_PIPELINE_WORK_FOLDER``, set by
the systemd units), and a flow run's processes have the run's id there too. So nothing has to be announced or taken
back, and a run that was killed is gone at the next look.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from soci_pipeline.errors import StackError

WORK_FOLDER = "SOCI_PIPELINE_WORK_FOLDER"
RUN_ID = "PREFECT__FLOW_RUN_ID"
_PROC = Path("/proc")
_KILL_SECONDS = 15.0
_EXEC_PAUSES = (0.005, 0.02, 0.0)


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the machine's worker; ``run`` is the flow run that it is of, None for the worker itself."""

    pid: int
    run: str | None


@dataclass(frozen=True, slots=True)
class Machine:
    """The processes that have one working folder in their environment, without the calling one."""

    work_folder: Path

    def runs(self) -> tuple[str, ...]:
        """The ids of the flow runs that have a process on this machine."""
        return tuple(sorted({process.run for process in self.processes() if process.run is not None}))

    def processes(self) -> Iterator[Process]:
        """The worker, its flow runs, and what those have started."""
        for entry in _PROC.iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                environment = _environment(entry)
                if self._owns(environment):
                    yield Process(int(entry.name), _run_id(environment))

    def end_everything(self) -> frozenset[str]:
        """Kill the worker first and then its flow runs, so that nobody reports what happens to them.

        Returns the ids of the runs that were killed, those included that the worker has just begun. Raises `StackError`
        where something is still there after some seconds.
        """
        ended: set[str] = set()
        deadline = time.monotonic() + _KILL_SECONDS
        while found := sorted(self.processes(), key=lambda process: process.run is not None):
            if time.monotonic() > deadline:
                left = ", ".join(str(process.pid) for process in found)
                raise StackError(f"processes {left} do not end, though they were killed", temporary=True)
            for process in found:
                _kill(process.pid, self._owns)
            ended |= {process.run for process in found if process.run is not None}
            time.sleep(0.05)
        return frozenset(ended)

    def _owns(self, environment: Mapping[bytes, bytes]) -> bool:
        return environment.get(WORK_FOLDER.encode()) == str(self.work_folder).encode()


def _run_id(environment: Mapping[bytes, bytes]) -> str | None:
    text = environment.get(RUN_ID.encode(), b"").decode(errors="replace")
    try:
        return str(UUID(text))
    except ValueError:
        return None


def _environment(process: Path) -> dict[bytes, bytes]:
    words = _environment_bytes(process).split(b"\0")
    return {name: value for name, _, value in (word.partition(b"=") for word in words)}


def _environment_bytes(process: Path) -> bytes:
    """What the kernel shows of it: nothing for a process that has ended, and for a moment of one that runs `exec`.

    Prefect's supervisor becomes the engine by `exec`. So a process that has a program and no environment is looked at
    again; one that really has none costs a look more.
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


def _kill(pid: int, owned: Callable[[Mapping[bytes, bytes]], bool]) -> None:
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            # The handle pins the process; only now is it sure that the id was not given to another one.
            if owned(_environment(_PROC / str(pid))):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
