"""Progress of long steps in bytes: the library reports it, and the caller decides whether and how to show it.

A step opens a `meter` and calls it with the number of bytes processed. Without a `Display` in the context this has no
effect. The command draws bars or prints lines (`soci_pipeline.commands.progress_display`).
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import BinaryIO, Protocol

Advance = Callable[[int], None]
"""Called with the number of bytes since the last call, from any thread."""


class Display(Protocol):
    """Shows meters; its methods may be called from any thread, and several meters may be open at once."""

    def meter(self, step: str, total: int | None) -> AbstractContextManager[Advance]:
        """Show a step while the block runs; ``total`` is in bytes, None if unknown."""


DISPLAY: ContextVar[Display | None] = ContextVar("DISPLAY", default=None)
"""The display for this context. Threads do not inherit it: open the meter before starting them."""


@contextlib.contextmanager
def meter(step: str, total: int | None = None) -> Iterator[Advance]:
    """Measure a step with a name for people (``push``, ``index``) and ``total`` bytes."""
    display = DISPLAY.get()
    if display is None:
        yield _discard_progress
        return
    with display.meter(step, total) as advance:
        yield advance


@contextlib.contextmanager
def shown_by(display: Display | None) -> Iterator[None]:
    """Show the meters of this block, and of what it calls, on ``display``; None disables them."""
    token = DISPLAY.set(display)
    try:
        yield
    finally:
        DISPLAY.reset(token)


class MeasuredReader:
    """A file that is read sequentially and reports the size of each chunk."""

    def __init__(self, file: BinaryIO, advance: Advance) -> None:
        self._file = file
        self._advance = advance

    def read(self, size: int = -1) -> bytes:
        """Read like the file."""
        piece = self._file.read(size)
        self._advance(len(piece))
        return piece


def _discard_progress(_: int) -> None:
    pass
