"""The pydantic schema of a value that travels as text: what its ``str()`` gives, its parser takes back."""

from collections.abc import Callable
from typing import Any

from pydantic_core import core_schema

from soci_pipeline.errors import InvalidInput


def text_schema(kind: type[Any], parse: Callable[[str], Any]) -> core_schema.CoreSchema:
    """Takes an instance of ``kind`` or a text that ``parse`` reads, and writes ``str()`` of it.

    What ``parse`` refuses with `InvalidInput` is a validation error of the model.
    """

    def validate(value: str) -> Any:
        try:
            return parse(value)
        except InvalidInput as error:
            raise ValueError(error.reason) from error

    text = core_schema.no_info_after_validator_function(validate, core_schema.str_schema())
    return core_schema.json_or_python_schema(
        json_schema=text,
        python_schema=core_schema.union_schema([core_schema.is_instance_schema(kind), text]),
        serialization=core_schema.plain_serializer_function_ser_schema(str),
    )
