"""When an automation of the server does what the checkout declares."""

from typing import Any

import pytest

from soci_pipeline.prefect_setup.automations import is_current

DECLARED: dict[str, Any] = {
    "name": "crash silent runs",
    "description": "Silent runs.",
    "trigger": {"expect": ["heartbeat", "Completed"], "match_related": [{"role": "tag"}, {"name": "f"}], "within": 130},
    "actions": [{"type": "change-flow-run-state", "state": "CRASHED"}],
}


def existing(*, trigger: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The automation as a server returns it: with ids, defaults, floats and sets in another order."""
    stored = {"id": "t", "threshold": 1, "within": 130.0, "expect": ["Completed", "heartbeat"]}
    full = DECLARED["trigger"] | stored | (trigger or {})
    return DECLARED | {"id": "a", "enabled": False, "trigger": full} | fields


def test_what_only_the_server_has_does_not_count() -> None:
    assert is_current(existing(), DECLARED)


@pytest.mark.parametrize(
    "other",
    [
        existing(description="Older."),
        existing(trigger={"within": 90.0}),
        existing(trigger={"expect": ["Completed"]}),
        existing(trigger={"expect": ["Completed", "Failed"]}),
        existing(trigger={"match_related": {}}),
        existing(trigger={"match_related": [{"role": "tag"}, {"name": "g"}]}),
        existing(trigger={"match_related": [{"name": "f"}, {"role": "tag"}]}),
        existing(actions=[]),
        existing(actions=["x"]),
        existing(actions=None),
    ],
)
def test_a_difference_in_what_is_declared_counts(other: dict[str, Any]) -> None:
    assert not is_current(other, DECLARED)
