"""Programs that keep logins for Docker: ``docker-credential-NAME get`` (docker-credential-helpers, "Development").

A helper reads the registry's name from its standard input and answers with JSON on its standard output, also where it
has nothing: then with a message. Its standard error is for people. What it prints may hold the secret, so nothing of it
comes into an error.
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
# Helpers talk to key rings and agents, many of which fail when they are called at the same time.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class StoredLogin:
    """A user with a secret; the user ``<token>`` means that the secret is an identity token."""

    username: str
    secret: SecretStr

    @property
    def is_token(self) -> bool:
        return self.username == "<token>"


def ask_helper(helper: str, registry: str) -> StoredLogin | None:
    """The login that a helper keeps for a registry's name or URL, or None.

    Raises `InvalidInput` for a name that is not a helper's, `ToolMissing`, `DeadlineExceeded`, and `CredentialsRefused`
    for a helper that fails or answers with anything else.
    """
    if not helper.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise InvalidInput(f"not the name of a credential helper: {helper[:100]!r}")
    program = f"docker-credential-{helper}"
    answer = _answer(program, registry)
    if _NOT_FOUND in answer.stdout.lower() or (answer.status != 0 and _NOT_FOUND in answer.stderr_tail.lower()):
        return None
    if answer.status != 0:
        raise _failure(program, registry, f"failed with status {answer.status}")
    try:
        return _login(first_json(answer.stdout))
    except ValueError:
        raise _failure(program, registry, "did not answer with credentials") from None


def first_json(text: str) -> Any:
    """The JSON value that a text begins with, as Docker reads it: what follows is ignored. Raises `ValueError`."""
    try:
        return json.JSONDecoder().raw_decode(text.lstrip())[0]
    except RecursionError:
        raise ValueError("nested too deep") from None


def json_field(record: Mapping[str, Any], name: str) -> Any:
    """A field of a JSON object; as for Docker, letters of another case are the same where the exact name is missing."""
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
    """The login in a helper's answer; None where one of the two is empty. Raises `ValueError`."""
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
