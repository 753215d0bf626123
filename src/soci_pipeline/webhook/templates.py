"""Fill ``${field}`` in a rule's parameters from an event; ``$${`` stands for a literal ``${``.

Fields are replaced once, inside strings; mapping keys and other values are left unchanged. Values from an event are
never expanded again.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from soci_pipeline.webhook.errors import EventRefused
from soci_pipeline.webhook.events import FIELDS

_FIELD = re.compile(r"\$\$\{|\$\{([^{}]*)\}")


def placeholders(value: Any, *, kind: str) -> frozenset[str]:
    """Return the fields that a value uses; raise ValueError for a field that events of this kind do not have."""
    names = frozenset(_names(value))
    unknown = sorted(names - FIELDS[kind])
    if unknown:
        known = ", ".join(sorted(FIELDS[kind]))
        raise ValueError(f"unknown field ${{{unknown[0]}}}; an event of kind {kind} has the fields {known}")
    return names


def fill(value: Any, fields: Mapping[str, str | None]) -> Any:
    """Return the value with its fields filled in; raise `EventRefused` for a field that this event does not have."""
    if isinstance(value, str):
        return _FIELD.sub(lambda found: _text(found, fields), value)
    if isinstance(value, Mapping):
        return {key: fill(each, fields) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [fill(each, fields) for each in value]
    return value


def _text(found: re.Match[str], fields: Mapping[str, str | None]) -> str:
    if found[1] is None:
        return "${"
    text = fields.get(found[1])
    if text is None:
        raise EventRefused(f"the rule uses ${{{found[1]}}}, but this event has none (a tag has no branch)")
    return text


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from (found[1] for found in _FIELD.finditer(value) if found[1] is not None)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _names(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _names(each)
