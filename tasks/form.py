"""The parameters of a flow, as its model has them: the form that Prefect's UI shows, and the check when a run begins.

Prefect makes the form of the flow's signature. Written by hand that would say again what the model says, so it is made
of the model: names, order, titles, descriptions, defaults, and the values there are to choose from.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import Field, WithJsonSchema

from soci_pipeline.validation import Parameters

LEFT_OUT = ...
"""Stands for a parameter that is required and was not given.

pydantic takes this default for none, so the form marks the field as required. Python takes it for one, so that a run
without it begins, and fails by our check; otherwise Prefect could not call the flow, and the run would be crashed.
"""
Request = TypeVar("Request", bound=Parameters)
Answer = TypeVar("Answer")


def form(
    model: type[Request], *, first: Sequence[str] = ()
) -> Callable[[Callable[[Request], Answer]], Callable[..., Answer]]:
    """Let a function of a checked request be called, as a flow is, with its fields as parameters.

    ``first`` are the fields that head the form; the others follow in the model's order. A call with wrong parameters
    raises `InvalidInput` with a line for each.
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
        # The value passes as it is: the model checks it, and says what is wrong better than a type would.
        annotation = Annotated[Any, WithJsonSchema(shown), Field(json_schema_extra=texts)]
        default = LEFT_OUT if field.is_required() else defaults[name]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
    return inspect.Signature(parameters)


def _plain(schema: Any) -> Any:
    """An optional text as a text: the form then has a field that may stay empty, and no choice between str and None."""
    if isinstance(schema, dict):
        plain = {name: _plain(part) for name, part in schema.items()}
        choices = [choice for choice in plain.pop("anyOf", []) if choice != {"type": "null"}]
        return plain | (choices[0] if len(choices) == 1 else {"anyOf": choices} if choices else {})
    return schema


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema with what it refers to in place: the form needs no definitions beside it."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inlined = {name: _inlined(part, definitions) for name, part in schema.items() if name != "$ref"}
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions) | inlined
    return inlined
