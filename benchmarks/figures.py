"""The rows of a complete run: figures, rows that could not be measured, and their table and plot."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """A measurement of ours compared with another tool's (or with a bound), made in the same run.

    ``goal`` is the largest ratio ``ours / theirs`` that meets it; ``None`` reports without a goal.
    """

    what: str
    ours: float
    theirs: float
    against: str
    unit: str
    goal: float | None
    note: str = ""

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return "-"
        return "met" if self.ratio <= self.goal else "missed"


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """A row without a figure, and the reason."""

    what: str
    why: str


Row = Figure | Unmeasured


def table(rows: Sequence[Row]) -> str:
    """Format the rows as a Markdown table."""
    head = ["| what | ours | against | theirs | ratio | goal | |", "|---|--:|---|--:|--:|--:|---|"]
    return "\n".join([*head, *map(_line, rows)])


def summary(rows: Sequence[Row]) -> str:
    """Summarize the goals in a sentence that names the missed ones."""
    verdicts = [(row.what, row.verdict) for row in rows if isinstance(row, Figure)]
    missed = [what for what, verdict in verdicts if verdict == "missed"]
    met = sum(verdict == "met" for _, verdict in verdicts)
    absent = sum(isinstance(row, Unmeasured) for row in rows)
    named = f" ({'; '.join(missed)})" if missed else ""
    return f"Goals met: {met}; missed: {len(missed)}{named}; rows not measured: {absent}."


def _line(row: Row) -> str:
    if isinstance(row, Unmeasured):
        return f"| {row.what} | - | - | - | - | - | not measured: {_one_line(row.why)} |"
    goal = "-" if row.goal is None else f"≤ {row.goal:g}"
    cells = [
        row.what,
        f"{row.ours:.2f} {row.unit}",
        row.against,
        f"{row.theirs:.2f} {row.unit}",
        f"{row.ratio:.2f}",
        goal,
        row.verdict + (f"; {_one_line(row.note)}" if row.note else ""),
    ]
    return f"| {' | '.join(cells)} |"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")[:400]


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plot ratios as bars with their goals, as SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    # Fixed ids and no date make the file reproducible.
    mpl.rcParams["svg.hashsalt"] = "soci-pipeline"
    import matplotlib.pyplot as plt

    figures = [row for row in rows if isinstance(row, Figure)]
    figure, axes = plt.subplots(figsize=(9, 0.6 * len(figures) + 1.2))
    labels = [f"{item.what}\nagainst {item.against}" for item in figures]
    colours = ["#2a7" if item.verdict != "missed" else "#c43" for item in figures]
    axes.barh(labels, [item.ratio for item in figures], color=colours)
    for place, item in enumerate(figures):
        if item.goal is not None:
            axes.plot([item.goal, item.goal], [place - 0.4, place + 0.4], color="black")
    axes.axvline(1.0, color="grey", linestyle=":")
    axes.set_xlim(0, min(2.0, 1.05 * max([1.0, *(item.ratio for item in figures)])))
    axes.invert_yaxis()
    axes.set_xlabel("ours / theirs (lower is better); black: the goal")
    axes.tick_params(axis="y", labelsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def machine() -> str:
    """Describe the machine in one line, without its name."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    system = f"{platform.system()} {platform.release().split('-')[0]}"
    return f"{cpu}, {os.cpu_count()} cores, {system}, Python {platform.python_version()}"
