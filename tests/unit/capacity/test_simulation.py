"""The simulation: groups that behave like AWS's, nothing lost, and figures that add up."""

import pytest

from soci_pipeline.capacity.policy import Bounds, Policy
from soci_pipeline.capacity.simulation import Outcome, Pool, Scenario, SimulatedGroup, simulate
from soci_pipeline.capacity.simulation_table import as_json, as_table
from soci_pipeline.errors import InvalidInput
from tests.support.capacity import MemoryQueue

POOLS = (Pool("amd64", 0.20, 300), Pool("arm64", 0.10, 300))


def played(rate: float, hours: float, **changes: object) -> tuple[Scenario, Outcome, MemoryQueue]:
    scenario = Scenario(rate, hours, POOLS, **changes)  # type: ignore[arg-type]
    queue = MemoryQueue()
    return scenario, simulate(scenario, queue), queue


def test_every_publication_is_served_and_the_groups_end_empty() -> None:
    _, outcome, queue = played(100, 1)
    assert outcome.publishes == len(outcome.waits) > 60
    assert not queue.running
    assert not any(queue.waiting.values())


def test_a_rare_publication_waits_for_an_instance_to_start() -> None:
    _, outcome, _ = played(0.5, 24)
    assert outcome.median_wait >= 90
    assert outcome.waits[-1] <= 90 + 30 + 5 + 5


def test_instances_that_are_always_there_leave_no_wait_but_cost_more() -> None:
    _, on_demand, _ = played(1, 12)
    _, always, _ = played(1, 12, policy=Policy(idle_s=13 * 3600.0))
    assert always.cost > 2 * on_demand.cost
    assert always.median_wait < 10 < on_demand.median_wait


def test_the_cost_is_that_of_the_hours() -> None:
    _, outcome, _ = played(10, 4)
    hours = outcome.instance_hours
    assert outcome.cost == pytest.approx(hours["amd64"] * 0.20 + hours["arm64"] * 0.10)
    work = outcome.publishes * 300 / 3600
    assert sum(hours.values()) > work, "two instances a publication work for about five minutes, two runs at once"


def test_the_same_scenario_has_the_same_outcome() -> None:
    assert played(10, 2)[1] == played(10, 2)[1]


def test_a_long_simulation_says_how_far_it_is() -> None:
    reached: list[float] = []
    scenario = Scenario(10, 2, POOLS)
    outcome = simulate(scenario, MemoryQueue(), reached=reached.append)
    assert reached == [1200.0 * step for step in range(1, int(outcome.hours * 3) + 1)]
    assert outcome == simulate(scenario, MemoryQueue())


def test_a_full_group_makes_publications_wait_for_each_other() -> None:
    _, outcome, _ = played(60, 1, bounds=Bounds(0, 1))
    _, free, _ = played(60, 1)
    assert outcome.waits[-1] > 4 * free.waits[-1]


def test_a_group_takes_back_idle_instances_alone() -> None:
    group = SimulatedGroup("g", Bounds(0, 5), boot_s=10)
    group.set_desired(2)
    group.now = 20
    busy, idle = group.free_places(1)
    assert busy is not idle
    busy.runs["run"] = 100
    group.set_desired(0)
    assert group.instances == [busy]
    assert group.paid_s == 20
    del busy.runs["run"]
    group.now = 100
    group.take_back()
    assert not group.instances
    assert group.paid_s == 120


def test_a_time_without_publications_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no publication"):
        played(0.001, 0.01)


def test_the_table_and_the_json_say_the_same() -> None:
    scenario, outcome, _ = played(10, 1)
    (row,) = as_json([(scenario, outcome)])
    text = as_table([(scenario, outcome)]).splitlines()[-1]
    assert f"${row['cost']:.2f}" in text
    assert f"{row['publishes']} in 1 h" in text
    assert row["cost_per_publish"] == pytest.approx(row["cost"] / row["publishes"], abs=0.01)
