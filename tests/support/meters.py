"""A display that records progress, for tests of code that reports it."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from soci_pipeline.progress import Advance


@dataclass
class Measured:
    """One step: the announced number of bytes, and the bytes reported."""

    step: str
    total: int | None
    done: int = 0
    ended: bool = False


@dataclass
class RecordingDisplay:
    """The steps in the order in which they started; ``on_bytes`` is also called for each report."""

    on_bytes: Callable[[int], None] | None = None
    steps: list[Measured] = field(default_factory=list)

    @contextlib.contextmanager
    def meter(self, step: str, total: int | None) -> Iterator[Advance]:
        """Record a step."""
        measured, lock = Measured(step, total), threading.Lock()
        self.steps.append(measured)

        def advance(count: int) -> None:
            with lock:
                measured.done += count
            if self.on_bytes is not None:
                self.on_bytes(count)

        try:
            yield advance
        finally:
            measured.ended = True

    def of(self, step: str) -> Measured:
        """Return the only step of that name."""
        (found,) = [each for each in self.steps if each.step == step]
        return found
