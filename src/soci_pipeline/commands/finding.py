"""What a check of a target says."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from soci_pipeline.errors import ExitCode


class Mark(StrEnum):
    """Whether a publication works there: it does, it does with less than could be, it does not."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Said:
    """The answer of a check that did not fail with an error."""

    detail: str
    advice: str | None = None
    mark: Mark = Mark.OK


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer; ``exit_code`` is the status of the command if this is the first that failed."""

    name: str
    mark: Mark
    detail: str
    advice: str | None
    exit_code: ExitCode = ExitCode.OK


@dataclass(frozen=True, slots=True)
class Step:
    """A check by name; without one that ``blocks``, those after it make no sense."""

    name: str
    look: Callable[[], Said]
    blocks: bool = False
