"""What the parameters of every flow have in common: a frozen model, checked with a line for each fault.

A flow's model is the one place that says what it takes. The flow checks its parameters with it, a webhook does so
before a run is made, and the form in Prefect's UI is made of it: the titles, the descriptions and the examples.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from soci_pipeline.errors import InvalidInput

_PLAIN_WORDS = {"missing": "is required", "extra_forbidden": "there is no such parameter"}
"""Faults of which pydantic speaks in terms of its own."""


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
            lines = []
            faults = error.errors(include_url=False, include_input=False, include_context=False)
            # A text is read where it is no instance, so what is wrong with the text says more.
            for fault in [each for each in faults if each["type"] != "is_instance_of"] or faults:
                # Of a list only the item's place is named, of a union only the parameter.
                where = ".".join(str(part) for part in fault["loc"][:2] if not str(part).startswith("function"))
                words = _PLAIN_WORDS.get(fault["type"], fault["msg"].removeprefix("Value error, "))
                lines.append(f"{where}: {words}" if where else words)
            raise InvalidInput(
                "; ".join(dict.fromkeys(lines)),
                advice="Correct the parameters: the form in Prefect's UI and docs/operations.md say what each takes.",
            ) from None
