"""Words for people: amounts in an answer, a log or a page, and the known word nearest to one that is not known."""

from collections.abc import Mapping

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
