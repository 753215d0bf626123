"""The three-way merge of JSON values: the last applied state, the file, and the server. Pure functions."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final

Path = tuple[str, ...]


class Absence(Enum):
    """The value of a missing key."""

    ABSENT = "absent"


ABSENT: Final = Absence.ABSENT


class OnConflict(StrEnum):
    """Whose change wins if both sides changed a value differently."""

    STOP = "stop"
    FILE = "file"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Difference:
    """A value at a path on the three sides."""

    path: Path
    applied: Any
    file: Any
    server: Any


@dataclass(frozen=True, slots=True)
class Merge:
    """The merged value; ``changes`` come from the file, ``kept`` from the server, ``conflicts`` from both."""

    value: Any
    changes: tuple[Difference, ...] = ()
    kept: tuple[Difference, ...] = ()
    conflicts: tuple[Difference, ...] = ()


def merge(applied: Any, file: Any, server: Any, prefer: OnConflict = OnConflict.STOP) -> Merge:
    """Merge three JSON values.

    A value that only one side changed is taken from that side. Mappings are merged key by key; any other value is
    merged as a whole. With `OnConflict.STOP` the merged value has the server's side of a conflict.
    """
    differences: dict[str, list[Difference]] = {"changes": [], "kept": [], "conflicts": []}
    value = _merged(Difference((), applied, file, server), prefer, differences)
    return Merge(value, **{kind: tuple(found) for kind, found in differences.items()})


def _merged(each: Difference, prefer: OnConflict, differences: dict[str, list[Difference]]) -> Any:
    if same(each.file, each.server):
        return each.server
    if isinstance(each.file, dict) and isinstance(each.server, dict):
        values = {key: _merged(inner, prefer, differences) for key, inner in _inner(each)}
        return {key: value for key, value in values.items() if value is not ABSENT}
    if same(each.file, each.applied):
        differences["kept"].append(each)
        return each.server
    if same(each.server, each.applied):
        differences["changes"].append(each)
        return each.file
    differences["conflicts"].append(each)
    return each.file if prefer is OnConflict.FILE else each.server


def _inner(each: Difference) -> Iterator[tuple[str, Difference]]:
    applied = each.applied if isinstance(each.applied, dict) else {}
    for key in {**each.file, **each.server}:
        sides = (side.get(key, ABSENT) for side in (applied, each.file, each.server))
        yield key, Difference((*each.path, key), *sides)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON; ``1`` differs from ``true``."""
    if one is ABSENT or other is ABSENT:
        return one is other
    return _text(one) == _text(other)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
