"""The findings of checks of a target."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from soci_pipeline.errors import ExitCode


class Mark(StrEnum):
    """Whether a publication works there: yes, yes with limits, or no."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check that raised no error."""

    detail: str
    advice: str | None = None
    mark: Mark = Mark.OK


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the result; ``exit_code`` is the exit status of the command if this is the first failed check."""

    name: str
    mark: Mark
    detail: str
    advice: str | None
    exit_code: ExitCode = ExitCode.OK


@dataclass(frozen=True, slots=True)
class Step:
    """A named check; if one that ``blocks`` fails, the checks after it are skipped."""

    name: str
    look: Callable[[], CheckResult]
    blocks: bool = False
