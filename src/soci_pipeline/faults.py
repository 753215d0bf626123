"""What pydantic finds wrong with an input, as a person reads it: where, and what, without pydantic's own terms.

Nothing of the input is repeated, which may be hostile or a secret; of messages by validators of one's own that is up to
them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

_LONGEST_PART = 40
_LONGEST_TEXT = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: ``kind`` is pydantic's type of error, ``place`` the way of keys and numbers to it."""

    kind: str
    place: tuple[int | str, ...]
    text: str


def faults_of(error: ValidationError, *, unknown: str = "there is no such field") -> list[Fault]:
    """All of them, in pydantic's order; ``unknown`` is said of a key that the model does not have."""
    found = error.errors(include_url=False, include_input=False)
    return [Fault(each["type"], each["loc"], _text(each, unknown)[:_LONGEST_TEXT]) for each in found]


def in_one_line(faults: Iterable[Fault], *, whole: str = "") -> str:
    """``a.b: is required; c: …``, each once; ``whole`` is the place of what is wrong with the input as a whole."""
    lines = [(place_of(fault) or whole, fault.text) for fault in faults]
    return "; ".join(dict.fromkeys(f"{place}: {text}" if place else text for place, text in lines))


def place_of(fault: Fault) -> str:
    """The place as ``a.0.b``."""
    return ".".join(str(part)[:_LONGEST_PART] for part in fault.place)


def _text(found: Mapping[str, Any], unknown: str) -> str:
    match found["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return unknown
        case "int_parsing" | "int_from_float":
            return "is no whole number"
        case "float_parsing":
            return "is no number"
        case "bool_parsing" | "bool_type":
            return "is neither true nor false"
        case "json_invalid":
            return "it is not JSON"
        case "union_tag_not_found":
            return f"it has no field {_name(found)}"
        case "union_tag_invalid":
            return (
                f"its {_name(found)} is not {found['ctx']['expected_tags'].replace(chr(39), '').replace(', ', ' or ')}"
            )
        case _:
            return str(found["msg"]).removeprefix("Value error, ")


def _name(found: Mapping[str, Any]) -> str:
    return f"`{found['ctx']['discriminator'].strip(chr(39))}`"
