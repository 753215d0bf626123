"""Which tags of a repository may move."""

import pytest

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
