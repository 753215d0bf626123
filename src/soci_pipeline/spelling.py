"""Which known word was meant by one that is not known."""

import difflib
from collections.abc import Mapping

_ALIKE = 0.65


def did_you_mean(word: str, known: Mapping[str, str]) -> str | None:
    """A question that names the known word nearest to ``word``, or None where none is near.

    ``known`` has what is compared, which leaves out what all have in common, and the word as it is shown.
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=_ALIKE)
    return f"Did you mean `{known[near[0]]}`?" if near else None
