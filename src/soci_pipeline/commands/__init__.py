"""The commands of `soci-pipeline`, one module for each; `soci_pipeline.cli` lists them.

A module has a function that takes `command.Arguments` and returns a `CommandResult`; the decorator `command.command`
turns it into a command. Only the module of the chosen command is imported.
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
    """The result of a command: a JSON object for programs, text for people, and the exit status.

    ``json`` is None if the result has already been shown.
    """

    json: Mapping[str, Any] | None = field(default_factory=dict)
    text: str = ""
    exit_code: ExitCode = ExitCode.OK

    def show(self, *, as_json: bool) -> None:
        """Print it to standard output immediately."""
        if self.json is None:
            return
        shown = json.dumps(self.json, indent=2) if as_json else for_terminal(self.text)
        if shown:
            write_out(f"{shown}\n".encode())


def write_out(data: bytes) -> None:
    """Write to standard output immediately; raise `DiskFull` or `InvalidInput` if writing fails.

    `BrokenPipeError` is raised if the reader has gone away.
    """
    if sys.stdout is None:
        # Python has no standard output if it was closed before the program started (``>&-``).
        return
    try:
        sys.stdout.flush()
        view = memoryview(data)
        # With PYTHONUNBUFFERED this writes directly to the file, which may silently accept only a part.
        while view:
            view = view[sys.stdout.buffer.write(view) :]
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_output()
        kind = DiskFull if error.errno in FULL else InvalidInput
        raise kind(f"standard output cannot be written: {error.strerror}", advice="Redirect it elsewhere.") from error


def discard_output() -> None:
    """Discard what standard output still buffers: Python would report the same error again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
