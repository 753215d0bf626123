"""How many instances there should be: raised at once, lowered late, never outside of the bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soci_pipeline.capacity.policy import Bounds, Demand, Memory, Policy, desired_capacity
from soci_pipeline.errors import InvalidInput

BOUNDS = Bounds(0, 10)
POLICY = Policy(runs_per_instance=2, idle_s=600)
NOTHING = Demand(0, 0)


def desired(demand: Demand, *, current: int, memory: Memory, now: float, bounds: Bounds = BOUNDS) -> int:
    return desired_capacity(demand, current=current, bounds=bounds, policy=POLICY, memory=memory, now=now)


@pytest.mark.parametrize(
    ("waiting", "running", "wanted"), [(0, 0, 0), (1, 0, 1), (2, 0, 1), (3, 0, 2), (1, 2, 2), (0, 5, 3), (100, 0, 10)]
)
def test_runs_that_wait_and_runs_that_run_fill_instances(waiting: int, running: int, wanted: int) -> None:
    assert desired(Demand(waiting, running), current=0, memory=Memory(), now=0) == wanted


def test_capacity_that_nobody_needs_is_kept_for_the_idle_time_and_then_given_back() -> None:
    memory = Memory()
    assert desired(Demand(4, 0), current=0, memory=memory, now=0) == 2
    assert desired(NOTHING, current=2, memory=memory, now=300) == 2
    assert desired(NOTHING, current=2, memory=memory, now=600) == 2
    assert desired(NOTHING, current=2, memory=memory, now=601) == 0


def test_it_goes_down_to_what_was_needed_meanwhile() -> None:
    memory = Memory()
    assert desired(Demand(8, 0), current=0, memory=memory, now=0) == 4
    assert desired(Demand(0, 2), current=4, memory=memory, now=400) == 4
    assert desired(NOTHING, current=4, memory=memory, now=700) == 1
    assert desired(NOTHING, current=1, memory=memory, now=1001) == 0


def test_a_pause_between_publications_keeps_the_machine() -> None:
    memory = Memory()
    for start in (0, 500, 1000, 1500):
        assert desired(Demand(1, 0), current=1, memory=memory, now=start) == 1
        assert desired(NOTHING, current=1, memory=memory, now=start + 250) == 1


def test_a_controller_that_has_just_started_lowers_nothing_before_a_whole_idle_time() -> None:
    memory = Memory()
    assert desired(NOTHING, current=3, memory=memory, now=0) == 3
    assert desired(NOTHING, current=3, memory=memory, now=600) == 3
    assert desired(NOTHING, current=3, memory=memory, now=630) == 0


def test_the_minimum_stays_whatever_is_needed() -> None:
    memory = Memory()
    bounds = Bounds(1, 3)
    assert desired(NOTHING, current=0, memory=memory, now=0, bounds=bounds) == 1
    assert desired(NOTHING, current=1, memory=memory, now=5000, bounds=bounds) == 1


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.floats(0, 2000)), min_size=1, max_size=60),
    st.integers(0, 5),
    st.integers(0, 25),
)
def test_it_stays_in_its_bounds_and_never_takes_what_is_needed(
    moments: list[tuple[int, int, float]], minimum: int, more: int
) -> None:
    bounds = Bounds(minimum, minimum + more)
    memory, current, now = Memory(), minimum, 0.0
    for waiting, running, pause in moments:
        now += pause
        demand = Demand(waiting, running)
        found = desired(demand, current=current, memory=memory, now=now, bounds=bounds)
        assert bounds.minimum <= found <= bounds.maximum
        assert found >= POLICY.needed(demand, bounds)
        current = found


@pytest.mark.parametrize("wrong", [{"runs_per_instance": 0}, {"idle_s": -1}, {"idle_s": float("nan")}])
def test_a_policy_that_cannot_be_meant_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        Policy(**wrong)  # type: ignore[arg-type]
