"""What an instance does for itself: it asks to be spared while it is busy, and hands its runs on when it must go.

Protection follows what the kernel shows to run, so a branch that was killed protects nobody, and a dead instance leaves
nothing. When EC2 takes a spot instance back, or the group ends it all the same, the runs are killed and go back to
their queue under their own ids, as Prefect itself reschedules runs on SIGTERM; the publications that wait for them
notice nothing but a longer wait. What is to be handed on is written down first, so that an agent that dies in between
goes on where it was.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from soci_pipeline.capacity.instance import Instance, Metadata
from soci_pipeline.capacity.machine import Machine
from soci_pipeline.errors import InvalidInput, SociPipelineError
from soci_pipeline.prefect_api import RunState
from soci_pipeline.process import logger

NOTICE = "interrupted"
"""The file that says that this instance goes; the worker's unit does not start where it is."""


class Runs(Protocol):
    """What is asked of Prefect about single runs (`soci_pipeline.prefect_api.PrefectApi`)."""

    def state(self, run: str) -> RunState: ...

    def reschedule(self, run: str, message: str) -> None: ...

    def end_as_cancelled(self, run: str, message: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Notice:
    reason: str
    runs: tuple[str, ...]


@dataclass
class Agent:
    """Looks after one instance. ``folder`` is where the notice is kept."""

    metadata: Metadata
    instance: Instance
    machine: Machine
    runs: Runs
    folder: Path
    _protected: bool | None = None
    _group: str | None = None
    _gone: bool = False

    def step(self) -> bool:
        """Look once; returns whether the instance's work is handed on and nothing is left to do.

        What AWS or Prefect refuse for the moment is logged, and tried again at the next look.
        """
        if self._gone:
            return True
        try:
            reason = self._why_to_go()
            if reason is not None:
                self._hand_on(reason)
                self._gone = True
            else:
                self._protect_while_busy()
        except SociPipelineError as error:
            self._protected = None
            logger().warning("%s", error.reason)
        return self._gone

    def _why_to_go(self) -> str | None:
        if (self.folder / NOTICE).exists():
            return _read(self.folder / NOTICE).reason
        interruption = self.metadata.interruption()
        if interruption is not None:
            return f"EC2 takes its spot instance back ({interruption.action} at {interruption.time:%H:%M:%S} UTC)"
        if self.metadata.taken_back():
            return "its Auto Scaling group ends the instance"
        return None

    def _protect_while_busy(self) -> None:
        busy = bool(self.machine.runs())
        if self._protected is None:
            membership = self.instance.membership()
            if membership is None:
                return
            self._group, self._protected = membership.group, membership.protected
        if busy != self._protected and self._group is not None:
            self.instance.protect(self._group, protected=busy)
            self._protected = busy
            logger().info("%s: the instance is %s", self._group, "busy and protected" if busy else "idle")

    def _hand_on(self, reason: str) -> None:
        notice = self._write_down(reason)
        logger().warning("%s; handing %d runs on", notice.reason, len(notice.runs))
        ended = self.machine.end_everything()
        for run in sorted(ended.union(notice.runs)):
            self._put_back(run, notice.reason)

    def _write_down(self, reason: str) -> _Notice:
        """The runs that are here now, and those that an agent before this one has written down."""
        path = self.folder / NOTICE
        known = _read(path) if path.exists() else _Notice(reason, ())
        notice = _Notice(known.reason, tuple(sorted({*known.runs, *self.machine.runs()})))
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"reason": notice.reason, "runs": notice.runs}))
        fresh.replace(path)
        return notice

    def _put_back(self, run: str, reason: str) -> None:
        state = self.runs.state(run)
        if state.kind == "CANCELLING":
            self.runs.end_as_cancelled(run, reason)
        elif state.kind not in {"COMPLETED", "FAILED", "CANCELLED", "SCHEDULED"}:
            # Crashed ones too: somebody may have seen the process end before this was said.
            self.runs.reschedule(run, f"It starts again on another worker: {reason}.")
            logger().info("run %s is back in its queue", run)


def _read(path: Path) -> _Notice:
    try:
        content = json.loads(path.read_text())
        return _Notice(str(content["reason"]), tuple(str(run) for run in content["runs"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} cannot be read", advice="Remove it; only this agent writes it.") from error
