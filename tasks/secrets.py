"""Secrets on the worker: named in the parameters, read from a block or AWS Secrets Manager, passed as files.

No value becomes a parameter, a result, a log line or a program's argument.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic import Secret as PydanticSecret

from soci_pipeline.aws.secrets import is_secret_arn, read_secret
from soci_pipeline.git.sign_in import GitCredentials
from soci_pipeline.publish import secret_places
from tasks.aws import load_block, session_of

_AWS_CREDENTIALS = "aws-credentials/"


def read_place(place: str) -> Any:
    """Return the value of a block or secret unchanged: a string, bytes or a mapping.

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
    """Return the git credentials from a token or a mapping (``username``, ``password`` or ``token``, ``ssh_key``).

    For CodeCommit the place may be an AwsCredentials block.
    """
    if place is None:
        return None
    if place.startswith(_AWS_CREDENTIALS):
        return GitCredentials(aws=session_of(load_block(place), place))
    return secret_places.credentials_from(place, read_place)


def secret_files(secrets: Mapping[str, str], folder: Path) -> AbstractContextManager[dict[str, Path]]:
    """Write each secret to a file below ``folder`` that only its owner can read; removed after the block."""
    return secret_places.secret_files(secrets, folder, read_place)


def _plain(value: Any) -> Any:
    """Unwrap pydantic's secret types; blocks use several of them, including generic ones."""
    if isinstance(value, SecretStr | SecretBytes | PydanticSecret):
        value = value.get_secret_value()
    return value.decode() if isinstance(value, bytes) else value
