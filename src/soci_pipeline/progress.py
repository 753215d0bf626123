"""How far a long step has come, in bytes: the library tells, and whoever runs it decides whether and how to show it.

A step opens a `meter` and calls it with the bytes that it has dealt with. Without a `Display` in the context nothing
comes of it. The command draws bars or prints lines (`soci_pipeline.commands.progress_display`).
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import BinaryIO, Protocol

Advance = Callable[[int], None]
"""Called with the bytes since the last call, from any thread."""


class Display(Protocol):
    """Shows meters; its methods may be called from any thread, and several meters may run at once."""

    def meter(self, step: str, total: int | None) -> AbstractContextManager[Advance]:
        """Show a step while the block runs; ``total`` is in bytes, None where it is not known."""


DISPLAY: ContextVar[Display | None] = ContextVar("DISPLAY", default=None)
"""Who shows the progress of this context. Threads do not inherit it: open the meter before they start."""


@contextlib.contextmanager
def meter(step: str, total: int | None = None) -> Iterator[Advance]:
    """Measure a step, named for people (``push``, ``index``), of ``total`` bytes."""
    display = DISPLAY.get()
    if display is None:
        yield _nobody_looks
        return
    with display.meter(step, total) as advance:
        yield advance


@contextlib.contextmanager
def shown_by(display: Display | None) -> Iterator[None]:
    """Show the meters of this block, and of what it calls, on ``display``; on none of them, with None."""
    token = DISPLAY.set(display)
    try:
        yield
    finally:
        DISPLAY.reset(token)


class MeasuredReader:
    """A file that is read from its beginning to its end, and tells of each piece."""

    def __init__(self, file: BinaryIO, advance: Advance) -> None:
        self._file = file
        self._advance = advance

    def read(self, size: int = -1) -> bytes:
        """Read like the file."""
        piece = self._file.read(size)
        self._advance(len(piece))
        return piece


def _nobody_looks(_: int) -> None:
    pass
