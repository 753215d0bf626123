"""A benchmark is made of parts; what one of them cannot measure becomes a row that says why, and costs no other one."""

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
    """Where a part works, and how large its data is: 1 for the figures that count, less to try a benchmark out."""

    folder: Path
    scale: float = 1.0

    def scaled(self, amount: int, least: int = 1) -> int:
        """An amount at this scale."""
        return max(least, round(amount * self.scale))

    def rounds(self, wanted: int) -> int:
        """How often something is repeated: once where it is only tried out."""
        return wanted if self.scale >= 1 else 1


Part = Callable[[Workbench], Iterable[Row]]
Parts = Mapping[str, Part]
"""By what each measures; the name stands in its row if it cannot be measured."""


def rows_of(name: str, part: Part, bench: Workbench, *, limit: float = LIMIT_SECONDS) -> list[Row]:
    """What a part measures. If it fails, what it had measured before that, and a row with the reason."""
    rows: list[Row] = []
    started = time.monotonic()
    try:
        with _limited(limit):
            for row in part(bench):
                rows.append(row)
                print(table([row]).splitlines()[-1], flush=True)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in one part, the others are measured
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
