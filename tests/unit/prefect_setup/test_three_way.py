"""The three-way merge, as a pure function: what holds for all values, and the cases that a person meets."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soci_pipeline.prefect_setup.three_way import ABSENT, Merge, OnConflict, merge, same

LEAVES = st.sampled_from([None, True, False, 0, 1, "", "a", "b", [], ["a"], ["a", "b"]])
KEYS = st.sampled_from(["image", "tags", "cron"])
VALUES = st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
STATES = st.dictionaries(KEYS, VALUES, max_size=3)
SIDES = st.sampled_from(list(OnConflict))


def paths(found: Merge, kind: str) -> list[str]:
    return [".".join(each.path) for each in getattr(found, kind)]


@given(STATES, STATES, SIDES)
def test_where_the_file_did_not_change_the_server_stays(applied: Any, server: Any, side: OnConflict) -> None:
    found = merge(applied, applied, server, side)
    assert same(found.value, server)
    assert (found.changes, found.conflicts) == ((), ())


@given(STATES, STATES, SIDES)
def test_where_the_server_did_not_change_it_gets_what_the_file_says(applied: Any, file: Any, side: OnConflict) -> None:
    found = merge(applied, file, applied, side)
    assert same(found.value, file)
    assert (found.kept, found.conflicts) == ((), ())


@given(STATES, STATES, SIDES)
def test_where_both_made_the_same_change_there_is_nothing_to_do(applied: Any, both: Any, side: OnConflict) -> None:
    assert merge(applied, both, both, side) == Merge(both)


@given(STATES, STATES, STATES, SIDES)
def test_what_was_merged_is_not_changed_again(applied: Any, file: Any, server: Any, side: OnConflict) -> None:
    value = merge(applied, file, server, side).value
    again = merge(file, file, value)
    assert same(again.value, value)
    assert (again.changes, again.conflicts) == ((), ())


@given(STATES, STATES, STATES)
def test_sides_of_conflicts_differ_from_each_other_and_from_what_was_applied(
    applied: Any, file: Any, server: Any
) -> None:
    for each in merge(applied, file, server).conflicts:
        assert not same(each.file, each.server)
        assert not same(each.file, each.applied)
        assert not same(each.server, each.applied)


@given(STATES, STATES, STATES)
def test_both_sides_meet_the_same_conflicts(applied: Any, file: Any, server: Any) -> None:
    one, other = merge(applied, file, server), merge(applied, server, file)
    assert sorted(paths(one, "conflicts")) == sorted(paths(other, "conflicts"))
    assert sorted(paths(one, "changes")) == sorted(paths(other, "kept"))


@given(STATES, STATES, STATES)
def test_the_chosen_side_wins_conflicts_and_nothing_else(applied: Any, file: Any, server: Any) -> None:
    by_file, by_server = (merge(applied, file, server, side) for side in (OnConflict.FILE, OnConflict.SERVER))
    assert (by_file.conflicts, by_file.changes, by_file.kept) == (
        by_server.conflicts,
        by_server.changes,
        by_server.kept,
    )
    assert same(by_file.value, by_server.value) == (by_file.conflicts == ())


@given(STATES, STATES, STATES, SIDES)
def test_every_leaf_comes_from_one_of_the_two_sides(applied: Any, file: Any, server: Any, side: OnConflict) -> None:
    value = merge(applied, file, server, side).value
    assert set(value) <= set(file) | set(server)


@pytest.mark.parametrize(
    ("applied", "file", "server", "value", "conflicts"),
    [
        ({"a": 1}, {"a": 2}, {"a": 1, "b": 3}, {"a": 2, "b": 3}, []),
        ({"a": 1}, {}, {"a": 1}, {}, []),
        ({"a": 1}, {"a": 1}, {}, {}, []),
        ({"a": 1}, {}, {"a": 2}, {"a": 2}, ["a"]),
        ({"a": 1}, {"a": 2}, {}, {}, ["a"]),
        ({}, {"a": 1}, {"a": 2}, {"a": 2}, ["a"]),
        ({}, {"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}, []),
        ({"a": ["x"]}, {"a": ["x", "y"]}, {"a": ["x", "z"]}, {"a": ["x", "z"]}, ["a"]),
        (
            {"s": {"cron": "1", "on": True}},
            {"s": {"cron": "2", "on": True}},
            {"s": {"cron": "1", "on": False}},
            {"s": {"cron": "2", "on": False}},
            [],
        ),
        ({"a": 1}, {"a": True}, {"a": 1}, {"a": True}, []),
        ({"a": {"x": 1}}, {"a": {"x": 2}}, {"a": "text"}, {"a": "text"}, ["a"]),
    ],
)
def test_cases_that_a_person_meets(applied: Any, file: Any, server: Any, value: Any, conflicts: list[str]) -> None:
    found = merge(applied, file, server)
    assert same(found.value, value)
    assert paths(found, "conflicts") == conflicts


def test_a_missing_value_is_not_null() -> None:
    (conflict,) = merge({"a": 1}, {"a": None}, {}).conflicts
    assert (conflict.file, conflict.server) == (None, ABSENT)
