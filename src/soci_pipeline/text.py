"""Text for people: numbers in a result, log or page, and suggestions for unknown words."""

import re
from collections.abc import Mapping

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# C0 except tab and newline, DEL, C1, bidirectional controls, and surrogates.
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_ALIKE = 0.65


def counted(number: int, one: str, many: str | None = None) -> str:
    """Format a count: ``1 tag``, ``2 tags``; ``many`` is an irregular plural."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def sized(count: float) -> str:
    """Format a number of bytes: ``512 B``, ``1.5 KiB``, ``3.0 MiB``, also GiB and TiB."""
    power, shown = 0, float(round(count))
    # Compare the rounded value, so that 1024.0 KiB becomes 1.0 MiB.
    while shown >= 1024 and power < len(_UNITS) - 1:
        power += 1
        shown = round(count / 1024**power, 1)
    return f"{shown:.1f} {_UNITS[power]}" if power else f"{shown:.0f} B"


def did_you_mean(word: str, known: Mapping[str, str]) -> str | None:
    """Return a question that suggests the known word closest to ``word``, or None if none is close.

    ``known`` maps the strings to compare, without a common prefix, to the words to show.
    """
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=_ALIKE)
    return f"Did you mean `{known[near[0]]}`?" if near else None


def for_terminal(text: str) -> str:
    """Make a string safe for terminals: remove colours, escape other control characters."""
    plain = _COLOUR.sub("", text).replace("\r\n", "\n")
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), plain)
