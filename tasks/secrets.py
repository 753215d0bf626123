"""Secrets on the worker: named in the parameters, read from a block or AWS Secrets Manager, handed over by file.

No value becomes a parameter, a result, a log line or an argument of a program.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic import Secret as PydanticSecret

from soci_pipeline.aws.secrets import is_secret_arn, read_secret
from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.sign_in import GitCredentials
from tasks.aws import load_block, session_of

_AWS_CREDENTIALS = "aws-credentials/"
_TOKEN_FIELDS = ("token", "password", "value")


def read_place(place: str) -> Any:
    """What a block or a secret holds, unchanged: text, bytes or a mapping.

    `InvalidInput` names the place, never its contents.
    """
    if is_secret_arn(place):
        return read_secret(place)
    block = load_block(place)
    value = _plain(getattr(block, "value", block))
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    return value


def git_credentials(place: str | None) -> GitCredentials | None:
    """For the git source: a token alone, or a mapping of ``username``, ``password`` or ``token``, and ``ssh_key``.

    For CodeCommit it may be an AwsCredentials block.
    """
    if place is None:
        return None
    if place.startswith(_AWS_CREDENTIALS):
        return GitCredentials(aws=session_of(load_block(place), place))
    held = _parsed(read_place(place))
    if isinstance(held, str):
        if "PRIVATE KEY-----" in held:
            return GitCredentials(ssh_key=SecretStr(held))
        return GitCredentials(password=SecretStr(held))
    fields = held if isinstance(held, Mapping) else {}
    secret = next((str(fields[name]) for name in _TOKEN_FIELDS if fields.get(name)), None)
    key = fields.get("ssh_key")
    if secret is None and not key:
        raise InvalidInput(f"{place} has none of token, password and ssh_key")
    return GitCredentials(
        username=str(fields.get("username") or "git"),
        password=None if secret is None else SecretStr(secret),
        ssh_key=SecretStr(str(key)) if key else None,
    )


@contextlib.contextmanager
def secret_files(secrets: Mapping[str, str], folder: Path) -> Iterator[dict[str, Path]]:
    """Each secret as a file that only its owner can read, below ``folder``; removed when the block is left.

    The folder is the run's own: what a killed run leaves in it is removed by the next one's reaper.
    """
    place = folder / "secrets"
    place.mkdir(mode=0o700)
    try:
        yield {name: _write(place / name, read_place(where)) for name, where in secrets.items()}
    finally:
        shutil.rmtree(place)


def _write(path: Path, value: Any) -> Path:
    # A text goes over as it is, JSON too: the program that reads it may compare or sign it.
    text = value if isinstance(value, str | bytes) else json.dumps(value)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(text.encode() if isinstance(text, str) else text)
    return path


def _plain(value: Any) -> Any:
    """What is behind pydantic's secret types; blocks use several of them, generic ones too."""
    if isinstance(value, SecretStr | SecretBytes | PydanticSecret):
        value = value.get_secret_value()
    return value.decode() if isinstance(value, bytes) else value


def _parsed(value: Any) -> Any:
    """A JSON object as a mapping; any other text as it is. Raises `InvalidInput` for bytes that are no text."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput("the credentials are no text", advice="Store a token, or a JSON object.") from error
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value
