"""Patterns: what they mean, compared with a reference that is plain and slow, and what a hostile name can cost."""

import random
import time
import tracemalloc
from collections.abc import Sequence
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from soci_pipeline.webhook.globs import Patterns
from tests.support.examples import examples

ALPHABET = st.sampled_from(["a", "b", "/", ".", "\n", "é"])
NAMES = st.lists(ALPHABET, max_size=10).map("".join)
PATTERNS = st.lists(st.sampled_from(["**/", "**", "*", "?", "a", "b", "/", "."]), min_size=1, max_size=7).map("".join)


@lru_cache(maxsize=1 << 16)
def reference(pattern: str, name: str) -> bool:
    """Every way to match, tried one after another; fine for short names alone."""
    if not pattern:
        return not name
    if pattern.startswith("**/"):
        folder, slash, rest = name.partition("/")
        return reference(pattern[3:], name) or bool(folder and slash and reference(pattern, rest))
    if pattern.startswith("**"):
        return any(reference(pattern[2:], name[start:]) for start in range(len(name) + 1))
    if pattern.startswith("*"):
        longest = len(name.partition("/")[0])
        return any(reference(pattern[1:], name[start:]) for start in range(longest + 1))
    matches = bool(name) and (name[0] == pattern[0] or (pattern[0] == "?" and name[0] != "/"))
    return matches and reference(pattern[1:], name[1:])


@settings(max_examples=examples(1000))
@given(pattern=PATTERNS, name=NAMES)
def test_a_pattern_matches_what_the_reference_matches(pattern: str, name: str) -> None:
    assert Patterns.model_validate([pattern]).matches(name) is reference(pattern, name)


@settings(max_examples=examples(300))
@given(patterns=st.lists(PATTERNS | PATTERNS.map("!{}".format), min_size=1, max_size=5), name=NAMES)
def test_of_several_patterns_the_last_that_matches_decides(patterns: list[str], name: str) -> None:
    if patterns[0].startswith("!"):
        return
    deciding = [each for each in patterns if reference(each.removeprefix("!"), name)]
    expected = bool(deciding) and not deciding[-1].startswith("!")
    assert Patterns.model_validate(patterns).matches(name) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        "**/a/**/b",
        "**/" * 60 + "b",
        "**a**a**a**a**b",
        "*a*a*a*a*a*a*b",
        "**/*a*/**/*a*/**/*b",
        "?" * 100 + "**" + "?" * 90,
    ],
)
@pytest.mark.parametrize("name", ["a/" * 10_000, "a" * 20_000, "/" * 20_000, "ab/" * 7_000 + "a"])
def test_a_hostile_name_of_20_kb_costs_next_to_nothing(pattern: str, name: str) -> None:
    patterns = Patterns.model_validate([pattern])
    before = time.process_time()
    patterns.matches(name)
    assert time.process_time() - before < 0.5


@pytest.mark.parametrize("pattern", ["**/*.py", "**/" * 60 + "x", "*?" * 100, "*a" + "?" * 198, "**/a/" + "?/" * 90])
@pytest.mark.parametrize("alphabet", [range(0x4E00, 0x9FFF), b"ab", b"a/"], ids=["all", "two", "folders"])
def test_many_different_characters_and_states_cost_next_to_nothing(pattern: str, alphabet: Sequence[int]) -> None:
    chance = random.Random(1)
    names = ["".join(map(chr, chance.choices(alphabet, k=4096))) for _ in range(16)]
    patterns = Patterns.model_validate([pattern])
    before = time.process_time()
    for name in names:
        patterns.matches(name)
    assert time.process_time() - before < 2


def test_long_folders_are_not_kept_in_memory() -> None:
    patterns = Patterns.model_validate(["**/*.py"])
    tracemalloc.start()
    try:
        for number in range(256):
            patterns.matches(f"{number}{'x' * 4000}/a")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 256 << 10


def test_the_time_grows_with_the_name_and_not_faster() -> None:
    patterns = Patterns.model_validate(["**/a/**/a/**/b"])

    def seconds(length: int) -> float:
        before = time.process_time()
        patterns.matches("a/" * length)
        return time.process_time() - before

    seconds(10_000)
    assert min(seconds(160_000) for _ in range(3)) < 64 * max(seconds(10_000), 0.001)


@pytest.mark.parametrize("patterns", [["a" * 201], ["a"] * 101, [""], ["!a"], ["a", "!"]])
def test_the_length_and_the_number_of_patterns_are_bounded(patterns: list[str]) -> None:
    with pytest.raises(ValidationError):
        Patterns.model_validate(patterns)
