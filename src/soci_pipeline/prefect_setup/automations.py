"""The automations: missing ones are created, outdated ones replaced; the operator decides which are enabled."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_setup.declared import DeclaredAutomation
from soci_pipeline.prefect_setup.steps import Note, Step

_KIND = "automations"
_COMPARED = ("description", "trigger", "actions")


def automation_steps(
    api: PrefectApi, declared: Sequence[DeclaredAutomation], *, notify_block: str | None = None
) -> list[Step]:
    """Return the steps for each automation; the one that notifies requires the id of a block."""
    return [_step(api, automation, notify_block) for automation in declared]


def _step(api: PrefectApi, automation: DeclaredAutomation, notify_block: str | None) -> Step:
    existing = api.automations(automation.name)
    fields = automation.fields
    if automation.notifies:
        # Without a new block, an installed automation keeps its own.
        block = notify_block or _notified(existing)
        if block is None:
            return Step((Note(_KIND, automation.name, "skipped: no --notify-block"),))
        first, *others = fields["actions"]
        fields = fields | {"actions": [first | {"block_document_id": block}, *others]}
    if not existing:
        return Step((Note(_KIND, automation.name, "made"),), (partial(api.create_automation, fields),))
    # Each one is updated: Prefect allows several with the same name, and each is active.
    outdated = [each for each in existing if not is_current(each, fields)]
    # The operator decides whether it is enabled.
    changes = [
        partial(api.update_automation, str(each["id"]), fields | {"enabled": each["enabled"]}) for each in outdated
    ]
    return Step((Note(_KIND, automation.name, "updated" if outdated else "unchanged"),), tuple(changes))


def _notified(existing: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the notification block of an installed automation."""
    actions = [action for each in existing for action in each["actions"]]
    blocks = [str(action["block_document_id"]) for action in actions if action["type"] == "send-notification"]
    return next(iter(blocks), None)


def is_current(existing: Mapping[str, Any], declared: Mapping[str, Any]) -> bool:
    """Whether an automation on the server equals the declared one, ignoring the server's own fields such as ids."""
    return all(_has(existing.get(name), declared[name]) for name in _COMPARED if name in declared)


def _has(existing: Any, declared: Any) -> bool:
    if isinstance(declared, dict):
        return isinstance(existing, dict) and all(_has(existing.get(name), value) for name, value in declared.items())
    if not isinstance(declared, list):
        return bool(existing == declared)
    if not isinstance(existing, list) or len(existing) != len(declared):
        return False
    if all(isinstance(each, str) for each in (*existing, *declared)):
        # The names of events are a set, which the server returns in any order.
        return sorted(existing) == sorted(declared)
    return all(_has(*pair) for pair in zip(existing, declared, strict=True))
