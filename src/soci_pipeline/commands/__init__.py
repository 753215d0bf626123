"""One module a command of `soci-pipeline`; `soci_pipeline.cli` lists them.

A module has a function that takes `command.Arguments` and returns a `CommandResult`, made a command by the decorator
`command.command`. Only the module of the chosen command is imported.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from soci_pipeline.errors import DiskFull, ExitCode, InvalidInput
from soci_pipeline.full_disk import FULL
from soci_pipeline.text import for_terminal


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command answers: a JSON object for programs, a text for people, and the exit status.

    ``json`` is None where the answer has been shown already.
    """

    json: Mapping[str, Any] | None = field(default_factory=dict)
    text: str = ""
    exit_code: ExitCode = ExitCode.OK

    def show(self, *, as_json: bool) -> None:
        """Print it on standard output, at once."""
        if self.json is None:
            return
        shown = json.dumps(self.json, indent=2) if as_json else for_terminal(self.text)
        if shown:
            write_out(f"{shown}\n".encode())


def write_out(data: bytes) -> None:
    """Write to standard output, at once; raises `DiskFull` or `InvalidInput` where it takes no more.

    A reader that has gone away is a `BrokenPipeError`, as ever.
    """
    if sys.stdout is None:
        # Python has none where it was closed before the program began (``>&-``).
        return
    try:
        sys.stdout.flush()
        view = memoryview(data)
        # With PYTHONUNBUFFERED this writes to the file itself, which may take a part of it and say nothing.
        while view:
            view = view[sys.stdout.buffer.write(view) :]
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        kind = DiskFull if error.errno in FULL else InvalidInput
        raise kind(f"standard output cannot be written: {error.strerror}", advice="Send it elsewhere.") from error


def drop_output() -> None:
    """Send to nowhere what standard output still holds: Python would complain of it once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
