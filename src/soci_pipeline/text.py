"""Words for people: amounts in an answer, a log or a page, and the known word nearest to one that is not known."""

import re
from collections.abc import Mapping

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# C0 but for tab and newline, DEL, C1, what changes the direction of a text, and what is not UTF-8.
_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_ALIKE = 0.65


def counted(number: int, one: str, many: str | None = None) -> str:
    """``1 tag``, ``2 tags``; ``many`` where it is more than an s behind ``one``."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def sized(count: float) -> str:
    """A number of bytes: ``512 B``, ``1.5 KiB``, ``3.0 MiB``, and GiB and TiB."""
    power, shown = 0, float(round(count))
    # As it will be written: there is no 1024.0 KiB.
    while shown >= 1024 and power < len(_UNITS) - 1:
        power += 1
        shown = round(count / 1024**power, 1)
    return f"{shown:.1f} {_UNITS[power]}" if power else f"{shown:.0f} B"


def did_you_mean(word: str, known: Mapping[str, str]) -> str | None:
    """A question that names the known word nearest to ``word``, or None where none is near.

    ``known`` has what is compared, which leaves out what all have in common, and the word as it is shown.
    """
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=_ALIKE)
    return f"Did you mean `{known[near[0]]}`?" if near else None


def for_terminal(text: str) -> str:
    """A text that changes no terminal: colours are taken out, other control characters are escaped."""
    plain = _COLOUR.sub("", text).replace("\r\n", "\n")
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), plain)
