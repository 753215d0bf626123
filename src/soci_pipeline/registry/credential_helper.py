"""Docker credential helpers: ``docker-credential-NAME get`` (docker-credential-helpers, "Development").

A helper reads the registry's name from stdin and writes JSON to stdout, or a message if it has no credentials. Its
output may contain the secret, so no error message includes any of it.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from soci_pipeline.errors import CredentialsRefused, DeadlineExceeded, InvalidInput, ToolFailed, ToolMissing
from soci_pipeline.machine import programs

_SECONDS = 60.0
_MAX_BYTES = 1 << 20
_NOT_FOUND = "credentials not found"
# Helpers call keyrings and agents, many of which fail under concurrent calls.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class StoredLogin:
    """A username and a secret; the username ``<token>`` means that the secret is an identity token."""

    username: str
    secret: SecretStr

    @property
    def is_token(self) -> bool:
        return self.username == "<token>"


def ask_helper(helper: str, registry: str) -> StoredLogin | None:
    """Return the login that a helper stores for a registry's name or URL, or None.

    Raises `InvalidInput` for an invalid helper name, `ToolMissing`, `DeadlineExceeded`, and `CredentialsRefused` if the
    helper fails or its output is not valid.
    """
    if not helper.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise InvalidInput(f"not a valid credential helper name: {helper[:100]!r}")
    program = f"docker-credential-{helper}"
    answer = _answer(program, registry)
    if _NOT_FOUND in answer.stdout.lower() or (answer.status != 0 and _NOT_FOUND in answer.stderr_tail.lower()):
        return None
    if answer.status != 0:
        raise _failure(program, registry, f"failed with status {answer.status}")
    try:
        return _login(first_json(answer.stdout))
    except ValueError:
        raise _failure(program, registry, "returned no valid credentials") from None


def first_json(text: str) -> Any:
    """Parse the JSON value at the start of a string; like Docker, ignore what follows it. Raises `ValueError`."""
    try:
        return json.JSONDecoder().raw_decode(text.lstrip())[0]
    except RecursionError:
        raise ValueError("nested too deep") from None


def json_field(record: Mapping[str, Any], name: str) -> Any:
    """Return a field of a JSON object, or None; like Docker, ignore case if there is no exact match."""
    if name in record:
        return record[name]
    return next((record[key] for key in sorted(record) if key.lower() == name.lower()), None)


def _answer(program: str, registry: str) -> programs.Completed:
    stdin = f"{registry}\n".encode()
    try:
        with _ONE_AT_A_TIME:
            return programs.run([program, "get"], stdin=stdin, timeout=_SECONDS, max_output=_MAX_BYTES, check=False)
    except ToolMissing as error:
        raise ToolMissing(
            f"the credential helper {program} is not on the PATH",
            advice="Install it, or remove it from credsStore or credHelpers in Docker's configuration.",
        ) from error
    except DeadlineExceeded as error:
        raise DeadlineExceeded(
            f"the credential helper {program} did not answer within {_SECONDS:g} s for {registry}",
            advice=_advice(program, registry),
        ) from error
    except programs.TooMuchOutput:
        raise _failure(program, registry, f"printed more than {_MAX_BYTES} bytes") from None
    except ToolFailed:
        raise _failure(program, registry, "cannot be started") from None


def _login(answer: Any) -> StoredLogin | None:
    """Return the login in a helper's output, or None if the username or secret is empty; raise `ValueError`."""
    if not isinstance(answer, dict):
        raise ValueError
    user, secret = json_field(answer, "Username"), json_field(answer, "Secret")
    if not isinstance(user, str) or not isinstance(secret, str):
        raise ValueError
    return StoredLogin(user, SecretStr(secret)) if user and secret else None


def _failure(program: str, registry: str, what: str) -> CredentialsRefused:
    return CredentialsRefused(
        f"the credential helper {program} {what} for {registry}", advice=_advice(program, registry)
    )


def _advice(program: str, registry: str) -> str:
    return (
        f"Run `echo {registry} | {program} get` as the same user to see why (it prints the secret), "
        "or remove the helper from Docker's configuration."
    )
