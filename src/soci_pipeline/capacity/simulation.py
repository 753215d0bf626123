"""Publications that come by chance, on groups of instances that are made up, with the real controller in between.

Time, instances and branches are simulated; the queue is whatever stands behind `Backend`, which for the published
table is a real Prefect server (`soci_pipeline.capacity.simulated_queue`). A branch waits until an instance has a free
place for it; an instance costs from its launch to its end, whether it works or not. The control machine, which is
always there, does not count.
"""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from soci_pipeline.capacity.controller import Controller, GroupState, Queue
from soci_pipeline.capacity.policy import Bounds, Policy
from soci_pipeline.errors import InvalidInput

_STEP_S = 5.0
_TOLD_S = 1200.0
_DEFAULT_POLICY = Policy()
_DEFAULT_BOUNDS = Bounds(0, 20)
# Long after the last arrival, and after the idle time, something is wrong.
_REST_S = 6 * 3600.0


class Backend(Queue, Protocol):
    """A queue that runs can be put into, taken from and ended in."""

    def submit(self, pool: str) -> str: ...

    def take(self, pool: str, limit: int) -> Sequence[str]: ...

    def finish(self, run: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Pool:
    """The instances of one pool: what an hour of one costs, and how long a branch on it takes (median, seconds)."""

    name: str
    price_per_hour: float
    branch_s: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated. Times are seconds, but for ``hours``."""

    publishes_per_hour: float
    hours: float
    pools: Sequence[Pool]
    policy: Policy = _DEFAULT_POLICY
    bounds: Bounds = _DEFAULT_BOUNDS
    look_s: float = 30.0
    boot_s: float = 90.0
    """From the change of the capacity until the instance's worker polls."""
    spread: float = 0.5
    """The sigma of the branches' durations, which are log-normal."""
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a scenario. ``waits`` are the seconds from a publication to the start of its last branch, sorted."""

    publishes: int
    waits: Sequence[float]
    instance_hours: Mapping[str, float]
    cost: float
    hours: float
    """From the first arrival that was possible to the end of the last instance."""

    def wait(self, share: float) -> float:
        """The wait that this share of the publications did not exceed."""
        return self.waits[min(len(self.waits) - 1, int(share * len(self.waits)))]

    @property
    def median_wait(self) -> float:
        return statistics.median(self.waits)


@dataclass(slots=True, eq=False)
class _Instance:
    launched: float
    ready: float
    runs: dict[str, float] = field(default_factory=dict)
    """When each of its runs will end."""


@dataclass
class SimulatedGroup:
    """A group like AWS's: it launches at once, takes back idle instances alone, and busy ones when they are done."""

    name: str
    bounds: Bounds
    boot_s: float
    now: float = 0.0
    desired: int = 0
    instances: list[_Instance] = field(default_factory=list)
    paid_s: float = 0.0

    def state(self) -> GroupState:
        return GroupState(desired=self.desired, bounds=self.bounds)

    def set_desired(self, count: int) -> None:
        self.desired = count
        while len(self.instances) < count:
            self.instances.append(_Instance(self.now, self.now + self.boot_s))
        self.take_back()

    def take_back(self) -> None:
        """End idle instances for as long as there are more than are desired, the oldest first."""
        for instance in [each for each in self.instances if not each.runs]:
            if len(self.instances) <= self.desired:
                return
            self.instances.remove(instance)
            self.paid_s += self.now - instance.launched

    def free_places(self, runs_per_instance: int) -> list[_Instance]:
        """One entry for each run that an instance could take now."""
        ready = [each for each in self.instances if each.ready <= self.now]
        return [each for each in ready for _ in range(runs_per_instance - len(each.runs))]


def simulate(scenario: Scenario, backend: Backend, *, reached: Callable[[float], None] = lambda _: None) -> Outcome:
    """Play a scenario to the end of its last instance; the same scenario has the same arrivals and durations.

    ``reached`` is called with the simulated seconds from time to time.
    """
    play = _Play(scenario, backend)
    for step in count():
        now = step * _STEP_S
        if step and not now % _TOLD_S:
            reached(now)
        play.advance(now)
        if play.is_over:
            return play.outcome(now)
        if now > scenario.hours * 3600 + scenario.policy.idle_s + _REST_S:
            raise RuntimeError(f"the simulation does not end: {play.left} runs are left")
    raise AssertionError


class _Play:
    def __init__(self, scenario: Scenario, backend: Backend) -> None:
        self._scenario = scenario
        self._backend = backend
        chance = random.Random(scenario.seed)  # noqa: S311 - arrivals, not secrets
        self._arrivals = _arrivals(scenario, chance)
        if not self._arrivals:
            raise InvalidInput("by chance no publication comes in this time", advice="Simulate more hours.")
        self._chance = chance
        self._groups = {
            pool.name: SimulatedGroup(f"{pool.name}-group", scenario.bounds, scenario.boot_s) for pool in scenario.pools
        }
        self._controller = Controller(backend, self._groups, scenario.policy)
        self._next_look = 0.0
        self._publishes = 0
        self._arrived: dict[str, tuple[int, float]] = {}
        self._durations: dict[str, float] = {}
        self._waits: dict[int, float] = {}

    @property
    def left(self) -> int:
        """Runs that have not ended."""
        return len(self._arrived)

    @property
    def is_over(self) -> bool:
        return not self._arrivals and not self._arrived and not any(group.instances for group in self._groups.values())

    def advance(self, now: float) -> None:
        for group in self._groups.values():
            group.now = now
        self._arrive(now)
        for pool in self._scenario.pools:
            self._finish(self._groups[pool.name], now)
        if now >= self._next_look:
            self._controller.step(now)
            self._next_look = now + self._scenario.look_s
        for pool in self._scenario.pools:
            self._take(pool, self._groups[pool.name], now)
            self._groups[pool.name].take_back()

    def outcome(self, now: float) -> Outcome:
        hours = {name: group.paid_s / 3600 for name, group in self._groups.items()}
        prices = {pool.name: pool.price_per_hour for pool in self._scenario.pools}
        return Outcome(
            publishes=self._publishes,
            waits=sorted(self._waits.values()),
            instance_hours=hours,
            cost=sum(hours[name] * price for name, price in prices.items()),
            hours=now / 3600,
        )

    def _arrive(self, now: float) -> None:
        while self._arrivals and self._arrivals[0] <= now:
            self._arrivals.pop(0)
            for pool in self._scenario.pools:
                run = self._backend.submit(pool.name)
                self._arrived[run] = (self._publishes, now)
                self._durations[run] = pool.branch_s * self._chance.lognormvariate(0, self._scenario.spread)
            self._publishes += 1

    def _finish(self, group: SimulatedGroup, now: float) -> None:
        for instance in group.instances:
            for run in [run for run, end in instance.runs.items() if end <= now]:
                self._backend.finish(run)
                del instance.runs[run], self._arrived[run]

    def _take(self, pool: Pool, group: SimulatedGroup, now: float) -> None:
        places = group.free_places(self._scenario.policy.runs_per_instance)
        if not places:
            return
        for run, instance in zip(self._backend.take(pool.name, len(places)), places, strict=False):
            instance.runs[run] = now + self._durations[run]
            publish, arrived = self._arrived[run]
            self._waits[publish] = max(self._waits.get(publish, 0.0), now - arrived)


def _arrivals(scenario: Scenario, chance: random.Random) -> list[float]:
    """When publications come, in seconds: a Poisson process."""
    found: list[float] = []
    moment = 0.0
    while True:
        moment += chance.expovariate(scenario.publishes_per_hour / 3600)
        if moment > scenario.hours * 3600:
            return found
        found.append(moment)
