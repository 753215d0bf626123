"""Number types for options on the command line.

`whole`, `size` and `quantity` return the ``type`` of an option; an invalid value is then a usage error that names the
option.
"""

import math
import re
from collections.abc import Callable
from typing import TypeVar

import click

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SHOWN = 40
_Value = TypeVar("_Value", int, float)
_SIZE = re.compile(r"([0-9]{1,18})(|KiB|MiB|GiB)\Z")


class _Number(click.ParamType[_Value]):
    """A click type that calls ``take`` for a word on the command line; a default is already a number."""

    def __init__(self, name: str, take: Callable[[str], _Value]) -> None:
        self.name = name
        self._take: Callable[[str], _Value] = take

    def convert(
        self,
        value: str | _Value,
        param: click.Parameter | None,  # noqa: ARG002
        ctx: click.Context | None,  # noqa: ARG002
    ) -> _Value:
        """Parse a word; raise `click.BadParameter`, to which click adds the option's name."""
        return self._take(value) if isinstance(value, str) else value


def whole(*, least: int) -> click.ParamType[int]:
    """Accept an integer of at least ``least``."""

    def take(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or int(text) < least:
            raise click.BadParameter(f"{text[:_SHOWN]!r} must be an integer of at least {least}")
        return int(text)

    return _Number("number", take)


def size(*, least: int, most: int | None = None) -> click.ParamType[int]:
    """Accept a number of bytes, or a size like ``4MiB``, from ``least`` to ``most``."""
    bound = f"of {least} or more bytes" if most is None else f"from {least} to {most:,} bytes"

    def take(text: str) -> int:
        found = _SIZE.match(text)
        taken = int(found[1]) * _UNITS[found[2]] if found else -1
        if taken < least or (most is not None and taken > most):
            raise click.BadParameter(f"{text[:_SHOWN]!r} is not a size {bound}, such as 4194304 or 4MiB")
        return taken

    return _Number("size", take)


def quantity(what: str, *, least: float, most: float) -> click.ParamType[float]:
    """Accept a number of ``what`` (seconds, days) in an inclusive range."""

    def take(text: str) -> float:
        try:
            taken = float(text)
        except ValueError:
            taken = math.nan
        if not least <= taken <= most:
            raise click.BadParameter(f"{text[:_SHOWN]!r} is not a number of {what} from {least:g} to {most:,.0f}")
        return taken

    return _Number(what, take)
