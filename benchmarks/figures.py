"""One measured figure, and the table and plot of a whole run."""

import os
import platform
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """A measurement of ours against another tool's (or against a bound), made in the same run.

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
class Usage:
    """What one process took from start to end; CPU is user and system time of the process and its children."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def measured(argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Usage:
    """Run a program once and measure the whole process, its start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    child = subprocess.Popen(argv, env=env, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    stderr = child.stderr.read() if child.stderr else b""
    # wait4 gives the peak of this child alone; RUSAGE_CHILDREN has the largest of all so far.
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = status
    wall = time.perf_counter() - started
    if status != 0:
        raise RuntimeError(f"{argv[0]} failed: {stderr.decode(errors='replace')[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Usage(wall_s=wall, cpu_s=cpu, peak_bytes=usage.ru_maxrss * 1024)


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    rows = [
        "| what | ours | against | theirs | ratio | goal | |",
        "|---|--:|---|--:|--:|--:|---|",
    ]
    for figure in figures:
        goal = "-" if figure.goal is None else f"≤ {figure.goal:g}"
        rows.append(
            f"| {figure.what} | {figure.ours:.2f} {figure.unit} | {figure.against} | {figure.theirs:.2f} {figure.unit} "
            f"| {figure.ratio:.2f} | {goal} | {figure.verdict}{'; ' + figure.note if figure.note else ''} |"
        )
    return "\n".join(rows)


def plot(figures: Sequence[Figure], path: Path) -> None:
    """Ratios as bars with their goals, as SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    # Fixed ids and no date: the same figures give the same file.
    mpl.rcParams["svg.hashsalt"] = "soci-pipeline"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.6 * len(figures) + 1.2))
    labels = [f"{item.what}\nagainst {item.against}" for item in figures]
    colours = ["#2a7" if item.verdict != "missed" else "#c43" for item in figures]
    axes.barh(labels, [item.ratio for item in figures], color=colours)
    for row, item in enumerate(figures):
        if item.goal is not None:
            axes.plot([item.goal, item.goal], [row - 0.4, row + 0.4], color="black")
    axes.axvline(1.0, color="grey", linestyle=":")
    axes.invert_yaxis()
    axes.set_xlabel("ours / theirs (lower is better); black: the goal")
    axes.tick_params(axis="y", labelsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def machine() -> str:
    """The machine in a line, without its name."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    system = f"{platform.system()} {platform.release().split('-')[0]}"
    return f"{cpu}, {os.cpu_count()} cores, {system}, Python {platform.python_version()}"
