"""Where credentials for a registry come from: the environment, Docker's configuration and its helpers, a provider.

A secret is a `SecretStr` from the moment it is read; it never reaches argv, a log or an exception. Helpers get the
registry's name on standard input and answer on standard output (docker-credential-helpers, "Development").
"""

import base64
import binascii
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import SecretStr

from soci_pipeline import process
from soci_pipeline.errors import CredentialsRefused, InvalidInput, ToolFailed
from soci_pipeline.registry.reference import DOCKER_HUB, canonical_registry, is_registry

HUB_KEY = "https://index.docker.io/v1/"
"""What Docker's configuration calls Docker Hub."""
_HELPER_SECONDS = 60.0
_NEW_CONFIG = "Correct or remove the file; `docker login` writes a new one."
_IDENTITY_USER = "<token>"
_REGISTRY_PATHS = frozenset({"", "v1", "v2"})


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user with a password, or a token: an identity token is exchanged for others, a registry token sent as it is."""

    username: str = ""
    password: SecretStr | None = None
    identity_token: SecretStr | None = None
    registry_token: SecretStr | None = None
    origin: str | None = field(default=None, compare=False)
    """The names of the variables that they come from, for the advice where they are refused."""

    def __post_init__(self) -> None:
        secrets = (self.password, self.identity_token, self.registry_token)
        values = [self.username, *(secret.get_secret_value() for secret in secrets if secret is not None)]
        if any("\udc80" <= letter <= "\udfff" for value in values for letter in value):
            raise CredentialsRefused(f"credentials for a registry are not UTF-8{self._from_where}")

    @property
    def _from_where(self) -> str:
        return f" ({self.origin})" if self.origin else ""

    def basic(self) -> str | None:
        """The value of a Basic Authorization header, or None where there is no password."""
        if self.password is None:
            return None
        pair = f"{self.username}:{self.password.get_secret_value()}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


class CredentialProvider(Protocol):
    """Answers with the credentials for a registry (``host[:port]``), or None where it has none.

    It is asked again after a refusal. One that keeps tokens is told of it first by `forget`.
    """

    def credentials_for(self, registry: str) -> Credentials | None:
        """The credentials for one registry."""

    def forget(self, registry: str) -> None:
        """The registry has refused the last answer: do not give it again where a fresh one can be had."""


class _Stored:
    """Credentials that are read anew each time, so there is nothing to forget."""

    def forget(self, registry: str) -> None:
        """Nothing: the next answer is what is stored by then."""


class FixedCredentials(_Stored):
    """The same credentials for one registry, or for all."""

    def __init__(self, credentials: Credentials, *, registry: str | None = None) -> None:
        self._credentials = credentials
        self._registry = registry

    def credentials_for(self, registry: str) -> Credentials | None:
        """Those, unless they are for another registry."""
        return self._credentials if self._registry in (None, registry) else None


class Environment(_Stored):
    """``SOCI_PIPELINE_REGISTRY_USERNAME`` and ``…_PASSWORD`` (or ``…_TOKEN``, an identity token).

    ``SOCI_PIPELINE_REGISTRY`` names the one registry (``host[:port]``) that receives them. A login without it, a user
    without a password, or a password without a user raises `CredentialsRefused` that names the missing variable.
    """

    PREFIX = "SOCI_PIPELINE_REGISTRY"

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment

    def credentials_for(self, registry: str) -> Credentials | None:
        """The login of the environment; None unless it is for that registry."""
        bound_to = self._environment.get(self.PREFIX) or ""
        if is_registry(bound_to) and canonical_registry(bound_to) != canonical_registry(registry):
            return None
        login = self._login()
        if login is not None and not is_registry(bound_to):
            raise self._unbound(bound_to, str(login.origin))
        return login

    def _login(self) -> Credentials | None:
        get = self._environment.get
        if token := get(f"{self.PREFIX}_TOKEN"):
            return Credentials(identity_token=SecretStr(token), origin=f"{self.PREFIX}_TOKEN")
        names = f"{self.PREFIX}_USERNAME", f"{self.PREFIX}_PASSWORD"
        user, password = map(get, names)
        if user and password is not None:
            return Credentials(username=user, password=SecretStr(password), origin=" and ".join(names))
        if user or password:
            there, missing = names if user else reversed(names)
            raise CredentialsRefused(
                f"{there} is set in the environment, and {missing} is not",
                advice=f"Set {missing} as well, or unset {there} to use what `docker login` left.",
            )
        return None

    def _unbound(self, bound_to: str, origin: str) -> CredentialsRefused:
        if bound_to:
            # Not quoted: an address may hold a password.
            reason = f"{self.PREFIX} is not a registry, so {origin} cannot be used"
        else:
            reason = f"{self.PREFIX} is not set, so no registry receives {origin}"
        return CredentialsRefused(
            reason,
            advice=f"Set {self.PREFIX} to the one registry that this login is for, as host or host:port without a "
            "scheme, for example registry.example.com.",
        )


def docker_config() -> Path:
    """Where the Docker command keeps its configuration: ``$DOCKER_CONFIG`` or ``~/.docker``, there or not."""
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


class DockerConfig(_Stored):
    """``config.json`` of the Docker command: ``credHelpers``, then ``credsStore``, then ``auths``.

    ``path`` defaults to `docker_config`. A missing file means no credentials; a broken one raises `InvalidInput`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or docker_config()

    def credentials_for(self, registry: str) -> Credentials | None:
        """What `docker login` left for that registry."""
        config = self._read()
        keys = _keys(registry)
        helpers = _mapping(config.get("credHelpers"))
        helper = next((helpers[key] for key in keys if helpers.get(key)), None) or config.get("credsStore")
        if helper:
            found = next((got for key in keys if (got := _from_helper(str(helper), key)) is not None), None)
            if found is not None:
                return found
        entry = _entry(_mapping(config.get("auths")), keys)
        return self._from_entry(entry) if entry else None

    def check(self) -> None:
        """Raise `InvalidInput` for a file that is there and cannot be read."""
        self._read()

    def _read(self) -> Mapping[str, Any]:
        try:
            config = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise InvalidInput(f"{self._path} is not readable as Docker's configuration", advice=_NEW_CONFIG) from error
        if not isinstance(config, dict):
            raise InvalidInput(
                f"{self._path} is not a JSON object, as Docker's configuration should be", advice=_NEW_CONFIG
            )
        return config

    def _from_entry(self, entry: Mapping[str, Any]) -> Credentials | None:
        if token := entry.get("registrytoken"):
            return Credentials(registry_token=SecretStr(str(token)))
        user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if encoded := entry.get("auth"):
            try:
                user, _, password = base64.b64decode(str(encoded), validate=True).decode().partition(":")
            except (binascii.Error, ValueError):
                # Without `from`: the cause would carry a part of the secret.
                raise InvalidInput(f"an auth entry of {self._path} is not base64 of user:password") from None
        if token := entry.get("identitytoken"):
            return Credentials(username=user, identity_token=SecretStr(str(token)))
        return Credentials(username=user, password=SecretStr(password.rstrip("\0"))) if user else None


class CredentialChain:
    """Asks several providers in turn; the first answer counts."""

    def __init__(self, *providers: CredentialProvider) -> None:
        self._providers = providers

    def credentials_for(self, registry: str) -> Credentials | None:
        """The first answer, or None."""
        answers = (provider.credentials_for(registry) for provider in self._providers)
        return next((answer for answer in answers if answer is not None), None)

    def forget(self, registry: str) -> None:
        """Told to every provider: whose answer was refused is not known here."""
        for provider in self._providers:
            provider.forget(registry)


def default_credentials() -> CredentialProvider:
    """The environment first, then Docker's configuration."""
    return CredentialChain(Environment(), DockerConfig())


_HELPER_LOCK = threading.Lock()


def _from_helper(helper: str, key: str) -> Credentials | None:
    if not helper.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise InvalidInput(f"not the name of a credential helper: {helper[:100]!r}")
    program = f"docker-credential-{helper}"
    try:
        # Helpers talk to key rings and agents, many of which do not like company.
        with _HELPER_LOCK:
            answer = process.run([program, "get"], package=program, stdin=f"{key}\n".encode(), timeout=_HELPER_SECONDS)
    except ToolFailed as error:
        # The message for "nothing stored" is part of the helper protocol and comes on standard output.
        if "credentials not found" in error.reason:
            return None
        raise CredentialsRefused(f"the credential helper {program} failed for {key}") from None
    try:
        fields = json.loads(answer.stdout)
        user, secret = str(fields["Username"]), str(fields["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CredentialsRefused(f"the credential helper {program} did not answer with credentials for {key}") from None
    if user == _IDENTITY_USER:
        return Credentials(identity_token=SecretStr(secret))
    return Credentials(username=user, password=SecretStr(secret))


def _keys(registry: str) -> tuple[str, ...]:
    return (HUB_KEY, DOCKER_HUB, "index.docker.io") if registry == DOCKER_HUB else (registry, f"https://{registry}")


def _entry(auths: Mapping[str, Any], keys: Sequence[str]) -> Mapping[str, Any]:
    """The entry under one of the keys, else under a URL of the registry; empty where there is none.

    A key with another path is for a part of the registry (``host/team``, as podman writes it) or another kind of token
    (``…/v1/refresh-token``), so it is never sent to the registry as a whole.
    """
    exact = next((auths[key] for key in keys if key in auths), None)
    if exact is not None:
        return _mapping(exact)
    hosts = {_host_of(key) for key in keys}
    return next((_mapping(value) for key, value in auths.items() if _host_of(key) in hosts), {})


def _host_of(key: str) -> str | None:
    """The ``host[:port]`` of a key for a whole registry; None for a key with another path."""
    host, _, path = key.removeprefix("https://").removeprefix("http://").partition("/")
    return host if path.rstrip("/") in _REGISTRY_PATHS else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
