"""Patterns for names with slashes, a subset of .gitignore: ``*``, ``**``, ``?`` and a leading ``!``.

Names are untrusted, so they are not matched with regular expressions: a backtracking matcher takes seconds for a name
of 20 KB and two ``**/``. A pattern is compiled to an automaton that reads each name once, segment by segment.
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
    """A list of patterns. The last one that matches a name decides; the first one must not begin with ``!``."""

    root: tuple[Pattern, ...] = Field(default=(), max_length=_MAX_PATTERNS)

    @field_validator("root")
    @classmethod
    def _something_is_taken_before_it_is_left_out(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        if patterns and patterns[0].startswith("!"):
            raise ValueError("the first pattern must not start with '!': there is nothing to exclude yet")
        if "!" in patterns:
            raise ValueError("a pattern is empty after its '!'")
        return patterns

    def __bool__(self) -> bool:
        return bool(self.root)

    def matches(self, name: str) -> bool:
        """Whether the patterns match the name."""
        taken = False
        for pattern in self.root:
            excludes = pattern.startswith("!")
            # Skip a pattern that could only confirm the result of the earlier ones.
            if excludes == taken and _automaton(pattern.removeprefix("!")).matches(name):
                taken = not excludes
        return taken


class _Automaton:
    """An NFA for one pattern. Its states are bits of an integer: bit n is set if the first n tokens match the input.

    Matching costs one step per character of the name, whatever the pattern: a few integer operations or a cache lookup.
    Segments of usual length that many names share are cached and cost one step each.
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
            # Do not cache long segments: a sender could fill the memory with them.
            read = self._folder if len(folder) <= _CACHED_LENGTH else self._read
            states = self._step(read(states, folder), "/")
            if not states:
                return False
        return bool(self._read(states, last) & self._accepting)

    def _read(self, states: int, text: str) -> int:
        for character in text:
            # To the pattern, all characters that it does not contain are equivalent.
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
        """Add the states after wildcards that can match the empty string."""
        while True:
            wider = states | (states & self._empty) << 1 | (states & self._empty_folders) << 2
            if wider == states:
                return states
            states = wider


# `**/` is two tokens: at the start of a segment, where it may end, and inside a segment that it consumes.
_INSIDE = "inside **/"


def _tokens(pattern: str) -> Iterator[str]:
    """Yield each wildcard of a pattern, and each other character prefixed with ``=``."""
    for part in _WILDCARD.split(pattern):
        if part == "**/":
            yield from (part, _INSIDE)
        elif part in ("**", "*", "?"):
            yield part
        else:
            yield from (f"={character}" for character in part)


def _mask(tokens: Sequence[str], *kinds: str) -> int:
    """Return the states before the tokens of these kinds, as a bit mask."""
    return sum(1 << number for number, token in enumerate(tokens) if token in kinds)


@lru_cache(maxsize=1024)
def _automaton(pattern: str) -> _Automaton:
    return _Automaton(pattern)
