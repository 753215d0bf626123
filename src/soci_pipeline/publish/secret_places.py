"""The secrets of a publication: named in the parameters, read where they are needed, passed on by file.

No value becomes a parameter, a result, a log line or an argument of a program. `read_here` reads what this machine can:
an ARN, and for a publication from this machine a file or environment variable of its user. A flow passes its own
reader, which supports Prefect blocks but neither files nor variables.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from soci_pipeline.aws.secrets import is_secret_arn, read_secret
from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.sign_in import GitCredentials

Read = Callable[[str], Any]
"""Return the content of a place: a string, bytes or a mapping. Errors name the place, never its content."""

_TOKEN_FIELDS = ("token", "password", "value")
_FILE, _VARIABLE = "file:", "env:"
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}\Z")
# BuildKit's limit for one secret.
_MOST_BYTES = 500 * 1024


def is_place_of_this_machine(place: str) -> bool:
    """Whether a place is a file (``file:PATH``) or an environment variable (``env:NAME``) of this machine's user."""
    if place.startswith(_FILE):
        return len(place) > len(_FILE) and place.isprintable()
    return place.startswith(_VARIABLE) and _VARIABLE_NAME.match(place.removeprefix(_VARIABLE)) is not None


def read_here(place: str) -> Any:
    """Read a secret from AWS Secrets Manager, a file or an environment variable.

    Raises `InvalidInput` for a Prefect block, which only a flow can read, and for an empty place.
    """
    if is_secret_arn(place):
        return read_secret(place)
    if place.startswith(_FILE):
        return _read_file(place)
    if place.startswith(_VARIABLE):
        return _read_variable(place)
    raise InvalidInput(
        f"{place} is a Prefect block, which only a run through Prefect can read",
        advice="Use file:PATH, env:NAME or the ARN of a secret in AWS Secrets Manager, or publish with --remote.",
    )


def _read_file(place: str) -> bytes:
    # Not `Path.expanduser`, which raises for an unknown user.
    path = Path(os.path.expanduser(place.removeprefix(_FILE)))  # noqa: PTH111
    try:
        with path.open("rb") as file:
            held = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{place}: {error.strerror}", advice="Use a file that you can read.") from error
    if not held or len(held) > _MOST_BYTES:
        what = "is larger than 500 KiB" if held else "is empty"
        raise InvalidInput(f"{place}: the file {what}", advice="Use the file that contains the secret.")
    return held


def _read_variable(place: str) -> bytes:
    held = os.environb.get(place.removeprefix(_VARIABLE).encode())
    if not held:
        raise InvalidInput(f"{place}: the variable is not set", advice="Export it first, or use file:PATH.")
    return held


def credentials_from(place: str, read: Read) -> GitCredentials:
    """Create credentials from a token, or a mapping of ``username``, ``password`` or ``token``, and ``ssh_key``."""
    held = _parsed(read(place))
    if isinstance(held, str):
        if "PRIVATE KEY-----" in held:
            return GitCredentials(ssh_key=SecretStr(held))
        # An editor adds a line end to a file with a token, which no token contains.
        return GitCredentials(password=SecretStr(held.rstrip("\r\n")))
    fields = held if isinstance(held, Mapping) else {}
    secret = next((str(fields[name]) for name in _TOKEN_FIELDS if fields.get(name)), None)
    key = fields.get("ssh_key")
    if secret is None and not key:
        raise InvalidInput(f"{place} must contain token, password or ssh_key")
    return GitCredentials(
        username=str(fields.get("username") or "git"),
        password=None if secret is None else SecretStr(secret),
        ssh_key=SecretStr(str(key)) if key else None,
    )


@contextlib.contextmanager
def secret_files(secrets: Mapping[str, str], folder: Path, read: Read) -> Iterator[dict[str, Path]]:
    """Write each secret to a file below ``folder`` that only its owner can read, for the duration of the block.

    The folder is the run's own: the reaper of the next run removes what a killed run leaves in it.
    """
    place = folder / "secrets"
    place.mkdir(mode=0o700)
    try:
        yield {name: _write(place / name, read(where)) for name, where in secrets.items()}
    finally:
        shutil.rmtree(place)


def _write(path: Path, value: Any) -> Path:
    # A string is written unchanged, even JSON: the program that reads it may compare or sign it.
    text = value if isinstance(value, str | bytes) else json.dumps(value)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(text.encode() if isinstance(text, str) else text)
    return path


def _parsed(value: Any) -> Any:
    """Return a JSON object as a mapping, and any other text unchanged; raise `InvalidInput` for other bytes."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput("the credentials are not a string", advice="Store a token, or a JSON object.") from error
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value
