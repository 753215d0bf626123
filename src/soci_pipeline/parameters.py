"""What the parameters of every flow have in common: a frozen model, checked with a line for each fault.

A flow's model is the one place that says what it takes. The flow checks its parameters with it, a webhook does so
before a run is made, and the form in Prefect's UI is made of it: the titles, the descriptions and the examples.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from soci_pipeline.errors import InvalidInput
from soci_pipeline.faults import faults_of, in_one_line


class Parameters(BaseModel):
    """The parameters of a flow, or a part of them."""

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
            found = faults_of(error, unknown="there is no such parameter")
            # A text is read where it is no instance, so what is wrong with the text says more.
            telling = [fault for fault in found if fault.kind != "is_instance_of"] or found
            raise InvalidInput(
                in_one_line(replace(fault, place=_shown(fault.place)) for fault in telling),
                advice="Correct the parameters: the form in Prefect's UI and docs/operations.md say what each takes.",
            ) from None


def _shown(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Of a list only the item's place, of a union only the parameter."""
    return tuple(part for part in place[:2] if not str(part).startswith("function"))
