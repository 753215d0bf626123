"""Run the `soci-pipeline` command: ``python -m soci_pipeline`` and the console script.

While the command is being imported nothing is open yet, so Ctrl-C ends the process immediately and quietly. An
exception would be raised inside other modules, some of which swallow it or report it as an error of their own.
"""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 128 + signal.SIGINT
_ANSWER = b'{\n  "error": "Interrupted",\n  "reason": "interrupted",\n  "advice": null,\n  "exit_code": 130\n}\n'


def entry() -> NoReturn:
    """Run the command and exit with its status."""
    # A shell ignores SIGINT in its background jobs; keep it ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    from soci_pipeline import cli

    cli.entry(imported=_raise_on_interrupt)


def _end(_number: int, _frame: FrameType | None) -> None:  # pragma: no cover - `os._exit` leaves nothing measured
    if "--json" in sys.argv:
        os.write(1, _ANSWER)
    os.write(2, b"interrupted\n")
    os._exit(_INTERRUPTED)


def _raise_on_interrupt() -> None:
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    entry()
