"""The rows of `make bench`: verdicts, the table, and a part that fails without costing the others."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.figures import Figure, Row, Unmeasured, plot, summary, table
from benchmarks.parts import Workbench, rows_of


def figure(ours: float, goal: float | None = 0.5) -> Figure:
    return Figure("inflating", ours, 10.0, "another tool", "s", goal)


@pytest.mark.parametrize(
    ("ours", "goal", "verdict"), [(5.0, 0.5, "met"), (5.1, 0.5, "missed"), (99.0, None, "-")], ids=str
)
def test_a_goal_is_the_largest_ratio_that_meets_it(ours: float, goal: float | None, verdict: str) -> None:
    assert figure(ours, goal).verdict == verdict


def test_the_table_has_a_line_for_each_row_and_says_what_was_not_measured_and_why() -> None:
    lines = table([figure(2.5), Unmeasured("pushing", "no registry\n| here")]).splitlines()
    assert lines[2] == "| inflating | 2.50 s | another tool | 10.00 s | 0.25 | ≤ 0.5 | met |"
    assert lines[3] == "| pushing | - | - | - | - | - | not measured: no registry / here |"
    assert {line.count("|") for line in lines} == {8}


def test_the_summary_names_what_was_missed() -> None:
    rows: list[Row] = [figure(2.5), figure(9.0), figure(1.0, None), Unmeasured("pushing", "no registry")]
    assert summary(rows) == "Goals met: 1; missed: 1 (inflating); rows not measured: 1."


def test_the_plot_shows_figures_alone(tmp_path: Path) -> None:
    plot([figure(2.5), Unmeasured("pushing", "no registry")], tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text()
    assert "inflating" in text
    assert "pushing" not in text


def test_a_part_that_fails_keeps_what_it_had_measured_and_names_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def part(bench: Workbench) -> Iterator[Row]:
        yield figure(2.5)
        raise ValueError("the tool is not here")

    rows = rows_of("indexing", part, Workbench(tmp_path))
    assert rows == [figure(2.5), Unmeasured("indexing, the rest of it", "ValueError: the tool is not here")]
    assert "Traceback" in capsys.readouterr().err


def test_a_part_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    def part(bench: Workbench) -> Iterator[Row]:
        while bench.scale:
            time.sleep(0.01)
        yield figure(2.5)

    (row,) = rows_of("waiting", part, Workbench(tmp_path), limit=0.1)
    assert isinstance(row, Unmeasured)
    assert "longer than 0.1 s" in row.why


def test_data_is_smaller_and_nothing_is_repeated_where_a_benchmark_is_only_tried_out() -> None:
    small, full = Workbench(Path(), 0.01), Workbench(Path())
    assert (small.scaled(200), small.scaled(10), small.rounds(5)) == (2, 1, 1)
    assert (full.scaled(200), full.rounds(5)) == (200, 5)
