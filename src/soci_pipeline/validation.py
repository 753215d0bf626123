"""Validation with pydantic: the base class of parameters, and readable errors.

An error says where and what is wrong, without pydantic's own terms. The input is never quoted, since it may be hostile
or secret; custom validators must take care of that in their own messages.
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
    """One validation error: ``kind`` is pydantic's error type, ``place`` the path of keys and indices to it."""

    kind: str
    place: tuple[int | str, ...]
    text: str


def problems_of(error: ValidationError, *, unknown: str = "unknown field") -> list[Problem]:
    """Return all problems, in pydantic's order; ``unknown`` is the message for a key that the model does not have."""
    found = error.errors(include_url=False, include_input=False)
    return [Problem(each["type"], each["loc"], _text(each, unknown)[:_LONGEST_TEXT]) for each in found]


def in_one_line(problems: Iterable[Problem], *, whole: str = "") -> str:
    """Format as ``a.b: is required; c: …``, without duplicates; ``whole`` is the place of errors in the whole input."""
    lines = [(place_of(problem) or whole, problem.text) for problem in problems]
    return "; ".join(dict.fromkeys(f"{place}: {text}" if place else text for place, text in lines))


def place_of(problem: Problem) -> str:
    """Format the place as ``a.0.b``."""
    return ".".join(str(part)[:_LONGEST_PART] for part in problem.place)


class Parameters(BaseModel):
    """The parameters of a flow, or a part of them: a frozen model whose errors have one line per problem.

    A flow's model is the single definition of its parameters. The flow validates its parameters with it, a webhook does
    so before it creates a run, and the form in Prefect's UI is generated from it: titles, descriptions and examples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _an_empty_text_says_nothing(cls, value: Any, field: ValidationInfo) -> Any:
        """Treat an empty form field as omitted if the field's default is None."""
        optional = field.field_name in cls.model_fields and cls.model_fields[field.field_name].default is None
        return None if optional and isinstance(value, str) and not value.strip() else value

    @classmethod
    def check(cls, parameters: Mapping[str, Any]) -> Self:
        """Validate, but raise `InvalidInput` with one line for each invalid parameter."""
        try:
            return cls.model_validate(dict(parameters))
        except ValidationError as error:
            found = problems_of(error, unknown="no such parameter")
            # In a union of instance and string, the error about the string is more useful.
            telling = [problem for problem in found if problem.kind != "is_instance_of"] or found
            raise InvalidInput(
                in_one_line(replace(problem, place=_shown(problem.place)) for problem in telling),
                advice="Correct the parameters; the form in Prefect's UI describes each of them.",
            ) from None


def _text(found: Mapping[str, Any], unknown: str) -> str:
    match found["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return unknown
        case "int_parsing" | "int_from_float":
            return "must be an integer"
        case "float_parsing":
            return "must be a number"
        case "bool_parsing" | "bool_type":
            return "must be true or false"
        case "json_invalid":
            return "it is not valid JSON"
        case "union_tag_not_found":
            return f"missing field {_name(found)}"
        case "union_tag_invalid":
            return (
                f"its {_name(found)} is not {found['ctx']['expected_tags'].replace(chr(39), '').replace(', ', ' or ')}"
            )
        case _:
            return str(found["msg"]).removeprefix("Value error, ")


def _name(found: Mapping[str, Any]) -> str:
    return f"`{found['ctx']['discriminator'].strip(chr(39))}`"


def _shown(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return only the item's place for a list, only the parameter for a union."""
    return tuple(part for part in place[:2] if not str(part).startswith("function"))
