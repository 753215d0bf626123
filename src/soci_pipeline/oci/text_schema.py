"""The pydantic schema of a value that is serialised with ``str()`` and parsed back from that string."""

from collections.abc import Callable
from typing import Any

from pydantic_core import core_schema

from soci_pipeline.errors import InvalidInput


def text_schema(kind: type[Any], parse: Callable[[str], Any]) -> core_schema.CoreSchema:
    """Return a schema that accepts an instance of ``kind`` or a string for ``parse``, and serialises with ``str()``.

    An `InvalidInput` raised by ``parse`` becomes a validation error of the model.
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
