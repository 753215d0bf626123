"""Patterns for names with slashes, as in .gitignore but smaller: ``*``, ``**``, ``?`` and a leading ``!``.

Names come from strangers, so no regular expression matches them: a backtracking one needs seconds for a name of
20 KB and two ``**/``. A pattern is an automaton here, and a name is read once, segment by segment.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Annotated

from pydantic import Field, RootModel, field_validator

_MAX_LENGTH = 200
_MAX_PATTERNS = 100
_CACHED_STEPS = 1 << 13
_CACHED_FOLDERS = 1 << 10
_CACHED_LENGTH = 100
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

    A name costs one step for each of its characters, whatever the pattern and the characters: a few operations on
    integers, or a look into a cache. Folders of a usual length that many names share cost one step each.
    """

    def __init__(self, pattern: str) -> None:
        tokens = tuple(_tokens(pattern))
        self._accepting = 1 << len(tokens)
        self._stays = _mask(tokens, "**")
        self._stays_in_segment = self._stays | _mask(tokens, "*", _INSIDE)
        self._inside = _mask(tokens, _INSIDE)
        self._any = _mask(tokens, "?", "**/")
        self._advances = {token[1]: _mask(tokens, token) for token in tokens if token.startswith("=")}
        self._empty = _mask(tokens, "*", "**")
        self._empty_folders = _mask(tokens, "**/")
        self._start = self._closure(1)
        self._step = lru_cache(maxsize=_CACHED_STEPS)(self._next_states)
        self._folder = lru_cache(maxsize=_CACHED_FOLDERS)(self._read)

    def matches(self, name: str) -> bool:
        """Whether the whole name matches."""
        *folders, last = name.split("/")
        states = self._start
        for folder in folders:
            # Long ones are not kept: a sender could fill the memory with them.
            read = self._folder if len(folder) <= _CACHED_LENGTH else self._read
            states = self._step(read(states, folder), "/")
            if not states:
                return False
        return bool(self._read(states, last) & self._accepting)

    def _read(self, states: int, text: str) -> int:
        for character in text:
            # To the pattern, all characters that it does not name are the same one.
            states = self._step(states, character if character in self._advances else "")
            if not states:
                break
        return states

    def _next_states(self, states: int, character: str) -> int:
        advancing = states & self._advances.get(character, 0)
        if character == "/":
            return self._closure(advancing << 1 | states & self._stays | (states & self._inside) >> 1)
        advancing |= states & self._any
        return self._closure(advancing << 1 | states & self._stays_in_segment)

    def _closure(self, states: int) -> int:
        """Add the states behind wildcards that may match nothing."""
        while True:
            wider = states | (states & self._empty) << 1 | (states & self._empty_folders) << 2
            if wider == states:
                return states
            states = wider


# `**/` is two tokens: at the start of a segment, where it may end, and inside of one that it takes whole.
_INSIDE = "inside **/"


def _tokens(pattern: str) -> Iterator[str]:
    """The wildcards of a pattern, and each other character behind a ``=``."""
    for part in _WILDCARD.split(pattern):
        if part == "**/":
            yield from (part, _INSIDE)
        elif part in ("**", "*", "?"):
            yield part
        else:
            yield from (f"={character}" for character in part)


def _mask(tokens: Sequence[str], *kinds: str) -> int:
    """The states in front of the tokens of these kinds."""
    return sum(1 << number for number, token in enumerate(tokens) if token in kinds)


@lru_cache(maxsize=1024)
def _automaton(pattern: str) -> _Automaton:
    return _Automaton(pattern)
