"""Signal handling of a command that must stop other things before it ends."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Ended(BaseException):
    """A signal requested the end of the command."""


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block like Ctrl-C, so that everything is stopped.

    Outside the main thread, which alone receives signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        # Not KeyboardInterrupt: raised while Python runs a text of code (it does so for data classes), that one makes
        # the interpreter end by SIGINT even if it was caught.
        raise Ended

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # nohup ignores SIGHUP, and a shell ignores SIGINT for background processes.
    numbers = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    earlier = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    except Ended:
        raise KeyboardInterrupt from None
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
