"""Numbers on the command line: how options take them.

What `whole`, `size` and `quantity` return goes to argparse as ``type``: what cannot be meant is then a wrong call that
names its option.
"""

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SHOWN = 40
_SIZE = re.compile(r"([0-9]{1,18})(|KiB|MiB|GiB)\Z")


def whole(*, least: int) -> Callable[[str], int]:
    """Takes a whole number of at least ``least``."""

    def take(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or int(text) < least:
            raise ArgumentTypeError(f"{text[:_SHOWN]!r} is no whole number of {least} or more")
        return int(text)

    return take


def size(*, least: int, most: int | None = None) -> Callable[[str], int]:
    """Takes a number of bytes, also as ``4MiB``; at least ``least`` of them, and ``most`` at most."""
    bound = f"of {least} or more bytes" if most is None else f"from {least} to {most:,} bytes"

    def take(text: str) -> int:
        found = _SIZE.match(text)
        taken = int(found[1]) * _UNITS[found[2]] if found else -1
        if taken < least or (most is not None and taken > most):
            raise ArgumentTypeError(f"{text[:_SHOWN]!r} is no size {bound}, such as 4194304 or 4MiB")
        return taken

    return take


def quantity(what: str, *, least: float, most: float) -> Callable[[str], float]:
    """Takes a number of ``what`` (seconds, days) in a range, both ends included."""

    def take(text: str) -> float:
        try:
            taken = float(text)
        except ValueError:
            taken = math.nan
        if not least <= taken <= most:
            raise ArgumentTypeError(f"{text[:_SHOWN]!r} is no number of {what} from {least:g} to {most:,.0f}")
        return taken

    return take
