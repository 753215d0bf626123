"""Delay signals with raising handlers while a program starts, so that no exception leaves the program running.

Blocking the signals would not work: a program inherits the mask, and only code between fork and exec could undo that.
Such code makes Python copy the page tables of the whole process, which takes ten milliseconds at 250 MB.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType

_RAISING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_Handler = Callable[[int, FrameType | None], object]


class HeldSignals:
    """Records signals from `hold` on, and passes each to its own handler at `release`.

    Python runs handlers only in the main thread, so in any other thread this does nothing. Call `release` in a
    ``finally``, even after an earlier `release`: a handler that raised may have interrupted it.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, _Handler] = {}
        self._replaced: list[int] = []
        self._came: dict[int, FrameType | None] = {}
        self._waits = True

    def hold(self) -> None:
        """Start to hold signals. A handler may raise here too, for a signal that arrived before."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _RAISING:
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                self._replaced.append(number)
                signal.signal(number, self._note)

    def release(self) -> None:
        """Restore the handlers and call them for held signals; if one raises, the remaining signals stay held."""
        self._waits = False
        while self._replaced:
            number = self._replaced[-1]
            signal.signal(number, self._handlers[number])
            self._replaced.pop()
        while self._came:
            number = next(iter(self._came))
            # Removed first: a handler runs only once, even if it raises.
            frame = self._came.pop(number)
            self._handlers[number](number, frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._waits:
            self._came[number] = frame
        else:
            self._handlers[number](number, frame)
