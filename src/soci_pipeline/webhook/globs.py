"""Patterns for names with slashes, as in .gitignore but smaller: ``*``, ``**``, ``?`` and a leading ``!``."""

import re
from functools import lru_cache
from typing import Annotated

from pydantic import Field, RootModel, field_validator

_MAX = 200


class Patterns(RootModel[tuple[Annotated[str, Field(min_length=1, max_length=_MAX)], ...]]):
    """A list of patterns. The last one that fits a name decides; a list of ``!`` patterns alone fits nothing."""

    root: tuple[Annotated[str, Field(min_length=1, max_length=_MAX)], ...] = ()

    @field_validator("root")
    @classmethod
    def _something_is_taken_before_it_is_left_out(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        if patterns and patterns[0].startswith("!"):
            raise ValueError("the first pattern must not begin with '!': there is nothing to leave out yet")
        if "!" in patterns:
            raise ValueError("a pattern is empty after its '!'")
        return patterns

    def __bool__(self) -> bool:
        return bool(self.root)

    def fit(self, name: str) -> bool:
        """Whether the name is taken."""
        taken = False
        for pattern in self.root:
            if _compiled(pattern.removeprefix("!")).fullmatch(name):
                taken = not pattern.startswith("!")
        return taken


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    special = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(special.get(part, re.escape(part)) for part in parts), re.DOTALL)
