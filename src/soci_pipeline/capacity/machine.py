"""The worker of this machine and the flow runs that it executes, as the kernel shows them.

What belongs to the machine's worker has its working folder in the environment (``SOCI_PIPELINE_WORK_FOLDER``, set by
the systemd units), and a flow run's processes have the run's id there too. So nothing has to be announced or taken
back, and a run that was killed is gone at the next look.
"""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from soci_pipeline.errors import StackError
from soci_pipeline.marked_processes import Mark

WORK_FOLDER = "SOCI_PIPELINE_WORK_FOLDER"
RUN_ID = "PREFECT__FLOW_RUN_ID"
_KILL_SECONDS = 15.0


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
        for process in self._mark.processes():
            yield Process(process.pid, _run_id(process.environment.get(RUN_ID, "")))

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
                self._mark.send(process.pid, signal.SIGKILL)
            ended |= {process.run for process in found if process.run is not None}
            time.sleep(0.05)
        return frozenset(ended)

    @property
    def _mark(self) -> Mark:
        return Mark(WORK_FOLDER, str(self.work_folder))


def _run_id(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None
