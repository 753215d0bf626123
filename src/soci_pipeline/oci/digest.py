"""Content digests, as the OCI image specification writes them (descriptor.md, "Digests")."""

import hashlib
import re
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from soci_pipeline.errors import InvalidInput

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import core_schema

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}\Z")
_CHUNK = 1 << 20


class Digest(str):
    """A validated ``sha256:<64 hex>`` digest. It is a string, so it serves as a key, in JSON and in paths.

    Raises `InvalidInput` for anything else; other algorithms are refused, since registries and SOCI use sha256 alone.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        if not _SHA256.match(value):
            raise InvalidInput(
                f"not a sha256 digest: {value[:100]!r}", advice="Write it as sha256: and 64 lower-case hex digits."
            )
        return super().__new__(cls, value)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """The digest of some bytes."""
        return cls(f"sha256:{hashlib.sha256(data).hexdigest()}")

    @classmethod
    def of_stream(cls, stream: BinaryIO) -> Self:
        """The digest of what is left in a stream, read in pieces of 1 MiB."""
        state = hashlib.sha256()
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
        return cls(f"sha256:{state.hexdigest()}")

    @property
    def hex(self) -> str:
        """The 64 hex digits alone."""
        return self[7:]

    @property
    def short(self) -> str:
        """The first twelve hex digits, for people."""
        return self[7:19]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: "GetCoreSchemaHandler") -> "core_schema.CoreSchema":
        # Here, since indexing a layer needs digests and no pydantic, whose import is half of its start.
        from pydantic_core import core_schema

        def validate(value: str) -> "Digest":
            try:
                return cls(value)
            except InvalidInput as error:
                raise ValueError(error.reason) from error

        return core_schema.no_info_after_validator_function(
            validate,
            core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )
