"""Secrets on the worker: named in the parameters, read from a block or AWS Secrets Manager, handed over by file.

No value becomes a parameter, a result, a log line or an argument of a program.
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
    return secret_places.credentials_from(place, read_place)


def secret_files(secrets: Mapping[str, str], folder: Path) -> AbstractContextManager[dict[str, Path]]:
    """Each secret as a file that only its owner can read, below ``folder``; removed when the block is left."""
    return secret_places.secret_files(secrets, folder, read_place)


def _plain(value: Any) -> Any:
    """What is behind pydantic's secret types; blocks use several of them, generic ones too."""
    if isinstance(value, SecretStr | SecretBytes | PydanticSecret):
        value = value.get_secret_value()
    return value.decode() if isinstance(value, bytes) else value
