"""One module a command of `soci-pipeline`; `soci_pipeline.cli` lists them.

A module has ``configure(parser)``, which adds its arguments, and ``run(arguments) -> CommandResult``. Heavy imports
belong inside the module: only the chosen command is imported.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from soci_pipeline.errors import ExitCode


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command answers: a JSON object for programs, a text for people, and the exit status."""

    json: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    exit_code: ExitCode = ExitCode.OK


class Command(Protocol):
    """The shape of a command's module."""

    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], CommandResult]
