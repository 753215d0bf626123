"""The receiver's secrets: environment variables or files that the configuration names but never contains.

A file is read again for every use, so a rotation needs no restart; a variable keeps its value until the next start.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from soci_pipeline.errors import InvalidInput
from soci_pipeline.webhook.json_logs import log

_MAX_BYTES = 64 << 10
MIN_KEY_BYTES = 16


class SecretSource(BaseModel):
    """The name of an environment variable or the path of a file; exactly one of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    file: Path | None = None

    @model_validator(mode="after")
    def _exactly_one_place_is_named(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("set either a variable (env) or a file (file)")
        return self

    def read(self) -> bytes:
        """Return the secret without surrounding whitespace; raise `InvalidInput`, with its place, if there is none."""
        value = (os.environ.get(self.env, "").encode() if self.env is not None else self._from_file()).strip()
        if not value:
            raise InvalidInput(f"the secret in {self} is empty or missing", advice="Set it before the receiver starts.")
        return value

    @property
    def is_readable(self) -> bool:
        """Whether `read` would succeed now."""
        try:
            self.read()
        except InvalidInput:
            return False
        return True

    def read_text(self) -> str:
        """Return the secret as a string for use in a header; raise `InvalidInput` if a header cannot carry it."""
        try:
            text = self.read().decode("ascii")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"the secret in {self} is not ASCII, as a token must be") from error
        if not text.isprintable():
            raise InvalidInput(f"the secret in {self} contains a control character; a token must be one line")
        return text

    def _from_file(self) -> bytes:
        path = self.file or Path()
        try:
            with path.open("rb") as file:
                return file.read(_MAX_BYTES)
        except OSError as error:
            raise InvalidInput(
                f"the secret in {self} cannot be read: {error.strerror}",
                advice="Create the file, readable for the receiver; `openssl rand -hex 32` generates a key.",
            ) from error

    def __str__(self) -> str:
        return f"the variable {self.env}" if self.env is not None else f"the file {self.file}"


def read_keys(secrets: Sequence[SecretSource]) -> list[bytes]:
    """Return the keys that can be read now; raise `InvalidInput` if none can."""
    keys: list[bytes] = []
    for secret in secrets:
        try:
            keys.append(secret.read())
        except InvalidInput as error:
            # During a rotation one of two files may be missing; without any key, nothing can be verified.
            log(error.reason, level=logging.ERROR)
            if secret is secrets[-1] and not keys:
                raise
    return keys
