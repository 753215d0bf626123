"""The controller: each pool by itself, nothing changed in a dry run, and a failure that stays where it is."""

from dataclasses import dataclass, field

from soci_pipeline.capacity.controller import Controller, GroupState
from soci_pipeline.capacity.policy import Bounds, Demand, Policy
from soci_pipeline.errors import StackError
from tests.support.capacity import MemoryQueue


@dataclass
class Group:
    name: str
    desired: int = 0
    asked: list[int] = field(default_factory=list)

    def state(self) -> GroupState:
        return GroupState(self.desired, Bounds(0, 3))

    def set_desired(self, count: int) -> None:
        self.asked.append(count)
        self.desired = count


class Broken(MemoryQueue):
    def demand(self, pool: str) -> Demand:
        if pool == "arm64":
            raise StackError("the server is away", temporary=True)
        return super().demand(pool)


def test_a_group_is_raised_while_runs_wait_and_given_back_when_they_are_done() -> None:
    queue, group = MemoryQueue(), Group("g")
    controller = Controller(queue, {"amd64": group}, Policy(runs_per_instance=1, idle_s=60))
    for _ in range(2):
        queue.submit("amd64")
    controller.step(0)
    for run in queue.take("amd64", 2):
        queue.finish(run)
    for now in (30, 60, 90):
        controller.step(now)
    assert group.asked == [2, 0]


def test_a_pool_follows_its_own_runs_alone() -> None:
    queue, amd, arm = MemoryQueue(), Group("a"), Group("b")
    queue.submit("amd64")
    Controller(queue, {"amd64": amd, "arm64": arm}, Policy()).step(0)
    assert (amd.asked, arm.asked) == ([1], [])


def test_a_dry_run_says_what_it_would_do_and_does_not() -> None:
    queue, group = MemoryQueue(), Group("g")
    queue.submit("amd64")
    (decision,) = Controller(queue, {"amd64": group}, Policy(), dry_run=True).step(0)
    assert decision.changes
    assert (decision.current, decision.desired, group.asked) == (0, 1, [])


def test_a_pool_that_cannot_be_asked_leaves_the_others_alone() -> None:
    queue, amd, arm = Broken(), Group("a"), Group("b", desired=2)
    queue.submit("amd64")
    found = {each.pool: each for each in Controller(queue, {"arm64": arm, "amd64": amd}, Policy()).step(0)}
    assert found["arm64"].error is not None
    assert not found["arm64"].changes
    assert (amd.asked, arm.asked) == ([1], [])
