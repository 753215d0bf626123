"""One look at every pool and its group, and what follows from it.

A group that cannot be asked or changed now is reported and left for the next look; the others go on. Nothing is kept
on disk: a controller that was restarted lowers nothing until it has seen a whole idle time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from soci_pipeline.capacity.policy import Bounds, Demand, Memory, Policy, desired_capacity
from soci_pipeline.errors import SociPipelineError
from soci_pipeline.process import logger


@dataclass(frozen=True, slots=True)
class GroupState:
    """What a group of instances has been asked to be."""

    desired: int
    bounds: Bounds


class Group(Protocol):
    """A group of like instances; `soci_pipeline.aws.auto_scaling` has AWS's."""

    @property
    def name(self) -> str: ...

    def state(self) -> GroupState: ...

    def set_desired(self, count: int) -> None: ...


class Queue(Protocol):
    """Where runs wait; `soci_pipeline.capacity.prefect_queue` asks Prefect."""

    def demand(self, pool: str) -> Demand: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What was found for one pool, and what was or would be done; ``error`` where it could not be."""

    pool: str
    group: str
    demand: Demand | None = None
    current: int | None = None
    desired: int | None = None
    error: SociPipelineError | None = None

    @property
    def changes(self) -> bool:
        return self.error is None and self.desired != self.current


@dataclass
class Controller:
    """Keeps the groups of some pools as large as the policy says. ``dry_run`` looks and changes nothing."""

    queue: Queue
    groups: Mapping[str, Group]
    """By the name of the pool that its instances poll."""
    policy: Policy
    dry_run: bool = False
    _memories: dict[str, Memory] = field(default_factory=dict)

    def step(self, now: float) -> Sequence[Decision]:
        """Look at every pool once; ``now`` is in seconds of any steady clock."""
        return [self._look(pool, group, now) for pool, group in self.groups.items()]

    def _look(self, pool: str, group: Group, now: float) -> Decision:
        try:
            demand = self.queue.demand(pool)
            state = group.state()
            desired = desired_capacity(
                demand,
                current=state.desired,
                bounds=state.bounds,
                policy=self.policy,
                memory=self._memories.setdefault(pool, Memory()),
                now=now,
            )
            if desired != state.desired and not self.dry_run:
                group.set_desired(desired)
        except SociPipelineError as error:
            logger().warning("%s: %s", pool, error.reason)
            return Decision(pool=pool, group=group.name, error=error)
        if desired != state.desired:
            logger().info(
                "%s: %d waiting, %d running: the capacity of %s %s from %d to %d",
                pool,
                demand.waiting,
                demand.running,
                group.name,
                "would go" if self.dry_run else "goes",
                state.desired,
                desired,
            )
        return Decision(pool=pool, group=group.name, demand=demand, current=state.desired, desired=desired)
