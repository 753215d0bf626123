"""Which tags of a repository may move."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soci_pipeline.errors import InvalidInput
from soci_pipeline.registry.tag_mutability import TagMutability


@pytest.mark.parametrize(
    ("mode", "filters", "movable", "fixed"),
    [
        ("MUTABLE", (), ["latest", "1.0"], []),
        ("IMMUTABLE", (), [], ["latest", "1.0"]),
        ("IMMUTABLE_WITH_EXCLUSION", ("latest", "dev-*"), ["latest", "dev-", "dev-x"], ["latest2", "xdev-1", "1.0"]),
        ("MUTABLE_WITH_EXCLUSION", ("v*.*", "prod"), ["latest", "v1", "xv1.0"], ["v1.0", "v.", "prod"]),
    ],
)
def test_the_four_modes_say_which_tags_may_move(
    mode: str, filters: tuple[str, ...], movable: list[str], fixed: list[str]
) -> None:
    rule = TagMutability.of(mode, filters)

    assert [tag for tag in movable if not rule.allows_moving(tag)] == []
    assert [tag for tag in fixed if rule.allows_moving(tag)] == []


@pytest.mark.parametrize(("mode", "filters"), [("SOMETIMES", ()), ("MUTABLE_WITH_EXCLUSION", ("a/b",))])
def test_an_unknown_mode_or_filter_is_refused(mode: str, filters: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput):
        TagMutability.of(mode, filters)


def reference(pattern: str, tag: str) -> bool:
    if not pattern or pattern[0] != "*":
        return pattern[:1] == tag[:1] and (not pattern or reference(pattern[1:], tag[1:]))
    return any(reference(pattern[1:], tag[start:]) for start in range(len(tag) + 1))


@given(pattern=st.text("ab*.", min_size=1, max_size=6), tag=st.text("ab.", max_size=8))
def test_a_filter_matches_what_the_reference_matches(pattern: str, tag: str) -> None:
    assert TagMutability.of("IMMUTABLE_WITH_EXCLUSION", [pattern]).allows_moving(tag) is reference(pattern, tag)


def test_a_hostile_filter_and_tag_cost_next_to_nothing() -> None:
    rule = TagMutability.of("IMMUTABLE_WITH_EXCLUSION", ["*a" * 60 + "*b"])
    before = time.process_time()
    assert not rule.allows_moving("a" * 128)
    assert time.process_time() - before < 0.5
