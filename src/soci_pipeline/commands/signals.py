"""What a command does when it is asked to end while it holds things that have to be stopped."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Ended(BaseException):
    """A signal asked for the end."""


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that everything is stopped.

    Outside of the main thread, which alone receives signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        # Not KeyboardInterrupt: raised while Python runs a text of code (it does so for data classes), that one makes
        # the interpreter end by SIGINT even if it was caught.
        raise Ended

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # nohup has SIGHUP ignored, and a shell SIGINT of what it starts in the background.
    numbers = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    earlier = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    except Ended:
        raise KeyboardInterrupt from None
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
