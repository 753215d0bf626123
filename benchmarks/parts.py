"""The parts of a benchmark. A part that cannot be measured becomes a row with the reason; the others still run."""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from benchmarks.figures import Row, Unmeasured, table

LIMIT_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Workbench:
    """A part's folder and the scale of its data: 1 for official figures, less to try a benchmark."""

    folder: Path
    scale: float = 1.0

    def scaled(self, amount: int, least: int = 1) -> int:
        """Scale an amount."""
        return max(least, round(amount * self.scale))

    def rounds(self, wanted: int) -> int:
        """Return the number of rounds: one below full scale."""
        return wanted if self.scale >= 1 else 1


Part = Callable[[Workbench], Iterable[Row]]
Parts = Mapping[str, Part]
"""The parts by name; the name is shown in the row if a part cannot be measured."""


def rows_of(name: str, part: Part, bench: Workbench, *, limit: float = LIMIT_SECONDS) -> list[Row]:
    """Return the rows of a part; if it fails, those measured before, and a row with the reason."""
    rows: list[Row] = []
    started = time.monotonic()
    try:
        with _limited(limit):
            for row in part(bench):
                rows.append(row)
                print(table([row]).splitlines()[-1], flush=True)
    except Exception as error:  # noqa: BLE001 - a failure in one part must not stop the others
        traceback.print_exc()
        missing = Unmeasured(f"{name}, the rest of it" if rows else name, f"{type(error).__name__}: {error}")
        rows.append(missing)
    took, load = time.monotonic() - started, os.getloadavg()[0]
    print(f"    {name}: {took:.0f} s, load average {load:.1f}", file=sys.stderr, flush=True)
    return rows


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
