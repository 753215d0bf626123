"""Resource usage of whole processes, from start to end."""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from soci_pipeline.machine.programs import run

LAUNCH = Path(__file__).with_name("launch.py")
_TIMEOUT_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Usage:
    """The resource usage of a process and its children. ``written_bytes`` went to file systems on a disk."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    written_bytes: int


@dataclass
class Runs:
    """The usage of several runs of one program: medians, and the largest peak."""

    usages: list[Usage] = field(default_factory=list)

    @property
    def wall(self) -> float:
        return statistics.median(usage.wall_s for usage in self.usages)

    @property
    def cpu(self) -> float:
        return statistics.median(usage.cpu_s for usage in self.usages)

    @property
    def peak(self) -> int:
        return max(usage.peak_bytes for usage in self.usages)


def measured(argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Usage:
    """Run a program once and measure the whole process, including its start; raise `ToolFailed`."""
    launcher = [sys.executable, "-I", "-S", str(LAUNCH), *argv]
    return Usage(**json.loads(run(launcher, env=env, cwd=cwd, timeout=_TIMEOUT_SECONDS).stdout))


def own_command(*arguments: str) -> list[str]:
    """Return the argv of a `soci-pipeline` command."""
    return [sys.executable, "-m", "soci_pipeline", *arguments]
