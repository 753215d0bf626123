"""How many instances a group should have: a pure function of what waits, what runs, and what was needed lately.

Capacity is raised at once and lowered late. Down goes only to the most that was needed within the last ``idle_s``
seconds, so a pause between two publications keeps the machine that the second one wants. A controller that starts has
no memory; what the group has counts as needed then, so that a restart never lowers anything early.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from soci_pipeline.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Demand:
    """What a work pool has at one moment, in flow runs."""

    waiting: int
    """Due, and taken by no worker."""
    running: int
    """Taken by a worker and not ended."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The fewest and the most instances that a group may have."""

    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Policy:
    """What a pool's instances are like, and how long they may idle."""

    runs_per_instance: int = 2
    """The ``--limit`` of the workers."""
    idle_s: float = 600.0
    """How long capacity is kept after it was last needed."""

    def __post_init__(self) -> None:
        if self.runs_per_instance < 1:
            raise InvalidInput(f"an instance takes at least one run at once, not {self.runs_per_instance}")
        if not math.isfinite(self.idle_s) or self.idle_s < 0:
            raise InvalidInput(f"instances idle for a number of seconds, not {self.idle_s}")

    def needed(self, demand: Demand, bounds: Bounds) -> int:
        """How many instances all runs that wait or run would fill."""
        wanted = math.ceil((demand.waiting + demand.running) / self.runs_per_instance)
        return max(bounds.minimum, min(wanted, bounds.maximum))


@dataclass(slots=True)
class Memory:
    """What was needed lately, as ``(time, instances)``: the most of it first, and nothing that no longer counts."""

    _needed: deque[tuple[float, int]] = field(default_factory=deque)
    _begun: bool = False

    def note(self, now: float, needed: int, *, current: int, keep_s: float) -> int:
        """Add what is needed at ``now``; returns the most that was needed within ``keep_s`` seconds."""
        if not self._begun:
            self._needed.append((now, current))
            self._begun = True
        while self._needed and self._needed[-1][1] <= needed:
            self._needed.pop()
        self._needed.append((now, needed))
        while now - self._needed[0][0] > keep_s:
            self._needed.popleft()
        return self._needed[0][1]


def desired_capacity(
    demand: Demand, *, current: int, bounds: Bounds, policy: Policy, memory: Memory, now: float
) -> int:
    """The capacity that a group of ``current`` instances should have; ``now`` is in seconds of any steady clock."""
    needed = policy.needed(demand, bounds)
    kept = memory.note(now, needed, current=current, keep_s=policy.idle_s)
    if needed >= current:
        return needed
    return max(bounds.minimum, min(current, kept, bounds.maximum))
