"""Patterns for names with slashes, as in .gitignore but smaller: ``*``, ``**``, ``?`` and a leading ``!``.

Names come from strangers, so no regular expression matches them: a backtracking one needs seconds for a name of
20 KB and two ``**/``. A pattern is an automaton here, and a name is read once, segment by segment.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated

from pydantic import Field, RootModel, field_validator

_MAX_LENGTH = 200
_MAX_PATTERNS = 100
_CACHED_STEPS = 1 << 13
_CACHED_FOLDERS = 1 << 10
_WILDCARD = re.compile(r"(\*\*/|\*\*|\*|\?)")

Pattern = Annotated[str, Field(min_length=1, max_length=_MAX_LENGTH)]


class Patterns(RootModel[tuple[Pattern, ...]]):
    """A list of patterns. The last one that fits a name decides; a list of ``!`` patterns alone fits nothing."""

    root: tuple[Pattern, ...] = Field(default=(), max_length=_MAX_PATTERNS)

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
            excludes = pattern.startswith("!")
            # A pattern decides nothing where it would only confirm what the earlier ones said.
            if excludes == taken and _automaton(pattern.removeprefix("!")).matches(name):
                taken = not excludes
        return taken


class _Automaton:
    """The states of one pattern as the bits of an integer: bit n is set where its first n tokens match what was read.

    A name costs at most one cached step for each of its characters, whatever the pattern; folders that many names share
    cost one step each.
    """

    def __init__(self, pattern: str) -> None:
        self._tokens = tuple(_tokens(pattern))
        self._accepting = 1 << len(self._tokens)
        self._start = self._closure(1)
        self._step = lru_cache(maxsize=_CACHED_STEPS)(self._next_states)
        self._folder = lru_cache(maxsize=_CACHED_FOLDERS)(self._read)

    def matches(self, name: str) -> bool:
        """Whether the whole name matches."""
        *folders, last = name.split("/")
        states = self._start
        for folder in folders:
            states = self._step(self._folder(states, folder), "/")
            if not states:
                return False
        return bool(self._read(states, last) & self._accepting)

    def _read(self, states: int, text: str) -> int:
        for character in text:
            states = self._step(states, character)
            if not states:
                break
        return states

    def _next_states(self, states: int, character: str) -> int:
        reached = 0
        for number, token in enumerate(self._tokens):
            if states >> number & 1:
                reached |= _successor(token, number, character)
        return self._closure(reached)

    def _closure(self, states: int) -> int:
        """Add the states behind wildcards that may match nothing."""
        for number, token in enumerate(self._tokens):
            if states >> number & 1:
                states |= _EMPTY.get(token, 0) << number
        return states


# `**/` is two tokens: at the start of a segment, where it may end, and inside of one that it takes whole.
_INSIDE = "inside **/"
_EMPTY = {"*": 0b10, "**": 0b10, "**/": 0b100}


def _tokens(pattern: str) -> Iterator[str]:
    """The wildcards of a pattern, and each other character behind a ``=``."""
    for part in _WILDCARD.split(pattern):
        if part == "**/":
            yield from (part, _INSIDE)
        elif part in ("**", "*", "?"):
            yield part
        else:
            yield from (f"={character}" for character in part)


def _successor(part: str, number: int, character: str) -> int:
    """The state that a character leads to from the state in front of a token; 0 where it does not match."""
    if part == "**":
        return 1 << number
    if part.startswith("="):
        return 1 << number + 1 if part[1:] == character else 0
    if character == "/":
        return 1 << number - 1 if part == _INSIDE else 0
    return 1 << number if part in ("*", _INSIDE) else 1 << number + 1


@lru_cache(maxsize=1024)
def _automaton(pattern: str) -> _Automaton:
    return _Automaton(pattern)
