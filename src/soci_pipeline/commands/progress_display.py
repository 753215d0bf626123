"""The progress of a command on standard error: bars in a terminal, occasional lines elsewhere.

rich draws the bars and omits colours if NO_COLOR is set. With ``CI``, ``TERM=dumb`` or a standard error that is not a
terminal, lines are printed. rich is imported when the first bar is drawn, so that quick commands stay quick.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TextIO

from soci_pipeline.progress import Advance, Display, shown_by
from soci_pipeline.text import sized

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

LINE_SECONDS = 5.0
"""The shortest interval between two lines, in seconds: a stored log should stay readable."""


@contextlib.contextmanager
def progress_shown(*, quiet: bool = False) -> Iterator[None]:
    """Show the progress of the block in the form that suits standard error and the environment."""
    if quiet:
        with shown_by(None):
            yield
    elif draws_bars(sys.stderr, os.environ):
        with contextlib.closing(BarDisplay()) as bars, shown_by(bars):
            yield
    else:
        with shown_by(LineDisplay()):
            yield


def draws_bars(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether ``stream`` can show bars to a person."""
    watched = environment.get("CI", "").lower() in {"", "0", "false"}
    return watched and environment.get("TERM", "dumb") != "dumb" and stream.isatty()


class BarDisplay:
    """A bar for each step, with its bytes, rate and remaining time.

    A bar stays where it was drawn once no other bar is active, so that later output is printed below it.
    """

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._running = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def meter(self, step: str, total: int | None) -> Iterator[Advance]:
        """Draw a bar for the duration of the block."""
        with self._lock:
            progress = self._started()
            self._running += 1
        task = progress.add_task(step, total=total)
        try:
            yield lambda count: progress.advance(task, count)
        finally:
            progress.stop_task(task)
            with self._lock:
                self._running -= 1
                if not self._running:
                    self.close()

    def close(self) -> None:
        """Stop drawing and leave the bars as they are."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _started(self) -> "Progress":
        if self._progress is None:
            from rich.console import Console
            from rich.progress import Progress

            # Output above the bars is not wrapped, because people copy commands and references.
            console = Console(stderr=True, soft_wrap=True)
            self._progress = Progress(*_columns(), console=console)
            self._progress.start()
        return self._progress


def _columns() -> "list[ProgressColumn]":
    from rich.progress import BarColumn, DownloadColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class RateColumn(ProgressColumn):
        """Like rich's own column, which only supports powers of 1000."""

        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            return Text("" if rate is None else f"{sized(rate)}/s", style="progress.data.speed")

    amount, left = DownloadColumn(binary_units=True), TimeRemainingColumn(compact=True)
    return [TextColumn("{task.description:<8}"), BarColumn(), amount, RateColumn(), left]


class LineDisplay:
    """Plain lines on standard error: the progress of a step every five seconds; nothing for faster steps."""

    def __init__(self, *, seconds: float = LINE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock

    @contextlib.contextmanager
    def meter(self, step: str, total: int | None) -> Iterator[Advance]:
        """Print lines for the duration of the block."""
        began = due = self._clock()
        due += self._seconds
        done = 0
        lock = threading.Lock()

        def advance(count: int) -> None:
            nonlocal done, due
            with lock:
                done += count
                now = self._clock()
                if now >= due:
                    due = now + self._seconds
                    print(progress_line(step, done, total, now - began), file=sys.stderr, flush=True)

        yield advance


def progress_line(step: str, done: int, total: int | None, seconds: float) -> str:
    """``push: 1.2 GiB of 3.0 GiB (40 %), 35.2 MiB/s``."""
    rate = f"{sized(done / seconds if seconds > 0 else 0)}/s"
    if total is None:
        return f"{step}: {sized(done)}, {rate}"
    return f"{step}: {sized(done)} of {sized(total)} ({done * 100 // max(1, total)} %), {rate}"


if TYPE_CHECKING:
    _BARS: Display = BarDisplay()
    _LINES: Display = LineDisplay()
