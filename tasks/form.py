"""The parameters of a flow from its model: the form in Prefect's UI, and the validation at the start of a run.

Prefect generates the form from the flow's signature. To avoid repeating the model there, the signature is derived from
it: names, order, titles, descriptions, defaults and choices.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field, WithJsonSchema

from soci_pipeline.validation import Parameters

LEFT_OUT = ...
"""Stands for a required parameter that was not passed.

pydantic does not treat this as a default, so the form marks the field as required. Python does, so a run without the
parameter starts and fails in our validation; otherwise Prefect could not call the flow, and the run would be crashed.
"""
Request = TypeVar("Request", bound=Parameters)
Answer = TypeVar("Answer")


def form(
    model: type[Request], *, first: Sequence[str] = ()
) -> Callable[[Callable[[Request], Answer]], Callable[..., Answer]]:
    """Make a function of a validated request callable as a flow is, with the model's fields as parameters.

    ``first`` are the fields at the top of the form; the others follow in the model's order. A call with invalid
    parameters raises `InvalidInput` with a line for each.
    """
    signature = _signature(model, [*first, *(name for name in model.model_fields if name not in first)])

    def decorate(function: Callable[[Request], Answer]) -> Callable[..., Answer]:
        @functools.wraps(function)
        def with_parameters(*positional: Any, **named: Any) -> Answer:
            given = signature.bind(*positional, **named).arguments
            return function(model.check({name: value for name, value in given.items() if value is not LEFT_OUT}))

        with_parameters.__signature__ = signature  # type: ignore[attr-defined]
        return with_parameters

    return decorate


def _signature(model: type[Parameters], names: Sequence[str]) -> inspect.Signature:
    document = model.model_json_schema()
    defaults = model.model_construct().model_dump(mode="json")
    parameters = []
    for name in names:
        field = model.model_fields[name]
        shown = _plain(_inlined(document["properties"][name], document.get("$defs", {})))
        texts = {"title": field.title, "description": field.description}
        # The value is passed unchanged: the model validates it with better errors than a type would.
        annotation = Annotated[Any, WithJsonSchema(shown), Field(json_schema_extra=texts)]
        default = LEFT_OUT if field.is_required() else defaults[name]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
    return inspect.Signature(parameters)


def _plain(schema: Any) -> Any:
    """Reduce an optional string to a string: the form has a field that may be empty, not a choice of str and None."""
    if isinstance(schema, dict):
        plain = {name: _plain(part) for name, part in schema.items()}
        choices = [choice for choice in plain.pop("anyOf", []) if choice != {"type": "null"}]
        return plain | (choices[0] if len(choices) == 1 else {"anyOf": choices} if choices else {})
    return schema


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """Replace references in a schema by their definitions, since the form does not support them."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inlined = {name: _inlined(part, definitions) for name, part in schema.items() if name != "$ref"}
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions) | inlined
    return inlined
