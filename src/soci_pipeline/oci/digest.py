"""Content digests in the format of the OCI image specification (descriptor.md, "Digests")."""

import hashlib
import re
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from soci_pipeline.errors import InvalidInput

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import core_schema

_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")
_CHUNK = 1 << 20
SHA256 = "sha256"


class Digest(str):
    """A validated sha256 or sha512 digest in hex. Being a string, it works as a dict key, in JSON and in paths.

    Raises `InvalidInput` for any other string. Everything that this library writes and that SOCI refers to has sha256
    digests; sha512 is supported for other content of a registry (descriptor.md, "Registered Algorithms").
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        if not _DIGEST.match(value):
            raise InvalidInput(
                f"not a valid digest: {value[:100]!r}",
                advice="Use sha256: followed by 64 lower-case hex digits.",
            )
        return super().__new__(cls, value)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = SHA256) -> Self:
        """Return the digest of ``data``."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")

    @classmethod
    def of_stream(cls, stream: BinaryIO, algorithm: str = SHA256) -> Self:
        """Return the digest of the rest of a stream, read in chunks of 1 MiB."""
        state = hashlib.new(algorithm)
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
        return cls(f"{algorithm}:{state.hexdigest()}")

    @property
    def algorithm(self) -> str:
        """The name of the algorithm, as `hashlib.new` expects it."""
        return self[:6]

    @property
    def hex(self) -> str:
        """The hex digits, without the algorithm."""
        return self[7:]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: "GetCoreSchemaHandler") -> "core_schema.CoreSchema":
        # A local import: indexing a layer needs digests but not pydantic, whose import takes half of the startup time.
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
