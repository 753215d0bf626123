"""Validation by pydantic: the base class of parameters, and errors for people.

What pydantic finds wrong with an input, as a person reads it: where, and what, without pydantic's own terms.

Nothing of the input is repeated, which may be hostile or a secret; of messages by validators of one's own that is up to
them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from soci_pipeline.errors import InvalidInput

_LONGEST_PART = 40
_LONGEST_TEXT = 200


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: ``kind`` is pydantic's type of error, ``place`` the way of keys and numbers to it."""

    kind: str
    place: tuple[int | str, ...]
    text: str


def problems_of(error: ValidationError, *, unknown: str = "there is no such field") -> list[Problem]:
    """All of them, in pydantic's order; ``unknown`` is said of a key that the model does not have."""
    found = error.errors(include_url=False, include_input=False)
    return [Problem(each["type"], each["loc"], _text(each, unknown)[:_LONGEST_TEXT]) for each in found]


def in_one_line(problems: Iterable[Problem], *, whole: str = "") -> str:
    """``a.b: is required; c: …``, each once; ``whole`` is the place of what is wrong with the input as a whole."""
    lines = [(place_of(problem) or whole, problem.text) for problem in problems]
    return "; ".join(dict.fromkeys(f"{place}: {text}" if place else text for place, text in lines))


def place_of(problem: Problem) -> str:
    """The place as ``a.0.b``."""
    return ".".join(str(part)[:_LONGEST_PART] for part in problem.place)


class Parameters(BaseModel):
    """The parameters of a flow, or a part of them: a frozen model, checked with a line for each problem.

    A flow's model is the one place that says what it takes. The flow checks its parameters with it, a webhook does so
    before a run is made, and the form in Prefect's UI is made of it: the titles, the descriptions and the examples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _an_empty_text_says_nothing(cls, value: Any, field: ValidationInfo) -> Any:
        """A form's field that was left empty is as good as one that was left out, where there is such a default."""
        optional = field.field_name in cls.model_fields and cls.model_fields[field.field_name].default is None
        return None if optional and isinstance(value, str) and not value.strip() else value

    @classmethod
    def check(cls, parameters: Mapping[str, Any]) -> Self:
        """As validation, but raises `InvalidInput` with one line for each parameter that is wrong."""
        try:
            return cls.model_validate(dict(parameters))
        except ValidationError as error:
            found = problems_of(error, unknown="there is no such parameter")
            # A text is read where it is no instance, so what is wrong with the text says more.
            telling = [problem for problem in found if problem.kind != "is_instance_of"] or found
            raise InvalidInput(
                in_one_line(replace(problem, place=_shown(problem.place)) for problem in telling),
                advice="Correct the parameters: the form in Prefect's UI says what each takes.",
            ) from None


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


def _shown(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Of a list only the item's place, of a union only the parameter."""
    return tuple(part for part in place[:2] if not str(part).startswith("function"))
