"""Two hundred random plans of faults against pushes; the unit tier runs the first of them."""

from pathlib import Path

from tests.support.fault_plans import faulty_registry, run_random_plans


def test_two_hundred_random_fault_plans_end_whole_or_with_a_name_and_an_unmoved_tag(tmp_path: Path) -> None:
    with faulty_registry(tmp_path / "registry") as running:
        outcomes = run_random_plans(running, tmp_path, 200)
    assert min(outcomes.values()) >= 40, outcomes
