"""Content digests, as the OCI image specification writes them (descriptor.md, "Digests")."""

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
    """A validated digest: sha256 or sha512 in hex. It is a string, so it serves as a key, in JSON and in paths.

    Raises `InvalidInput` for anything else. What this library makes has sha256 digests, and so has everything that SOCI
    points at; sha512 is what a registry may be asked for besides (descriptor.md, "Registered Algorithms").
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        if not _DIGEST.match(value):
            raise InvalidInput(
                f"not a digest: {value[:100]!r}",
                advice="Write it as sha256: and 64 lower-case hex digits.",
            )
        return super().__new__(cls, value)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = SHA256) -> Self:
        """The digest of some bytes."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")

    @classmethod
    def of_stream(cls, stream: BinaryIO, algorithm: str = SHA256) -> Self:
        """The digest of what is left in a stream, read in pieces of 1 MiB."""
        state = hashlib.new(algorithm)
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
        return cls(f"{algorithm}:{state.hexdigest()}")

    @property
    def algorithm(self) -> str:
        """The name of the algorithm, as `hashlib.new` takes it."""
        return self[:6]

    @property
    def hex(self) -> str:
        """The hex digits alone."""
        return self[7:]

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
