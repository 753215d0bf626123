"""Where credentials for a registry come from: the environment, Docker's configuration and its helpers, a provider.

A secret is a `SecretStr` from the moment it is read; it never reaches argv, a log or an exception.
"""

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import SecretStr

from soci_pipeline.errors import CredentialsRefused, DeadlineExceeded, InvalidInput, ToolMissing
from soci_pipeline.log import logger
from soci_pipeline.registry.credential_helper import ask_helper, first_json, json_field
from soci_pipeline.registry.reference import DOCKER_HUB, canonical_registry, is_registry

HUB_KEY = "https://index.docker.io/v1/"
"""What Docker's configuration calls Docker Hub."""
_NEW_CONFIG = "Correct or remove the file; `docker login` writes a new one."
_HUB_HOSTS = ("index.docker.io", "registry-1.docker.io")
_SCHEMES = ("https://", "http://", "")
_PATHS = ("", "/", "/v1/", "/v1", "/v2/", "/v2")
_KINDS: Mapping[type, str] = {dict: "a JSON object", str: "a string"}


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
    return (Path(folder) if folder else _home() / ".docker") / "config.json"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        # A user without HOME that the machine does not know, as in some containers.
        return Path("/")


class DockerConfig(_Stored):
    """``config.json`` of the Docker command: ``credHelpers``, then ``credsStore``, then ``auths``.

    ``path`` defaults to `docker_config`. A missing or empty file means no credentials; a broken one raises
    `InvalidInput`. As for Docker, an entry in ``auths`` counts where the helper fails; without one, that is raised.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or docker_config()

    def credentials_for(self, registry: str) -> Credentials | None:
        """What `docker login` left for that registry."""
        config = self._read()
        try:
            found = _from_helper(config, registry)
        except (CredentialsRefused, DeadlineExceeded, ToolMissing) as error:
            entry = self._from_auths(config, registry)
            if entry is None:
                raise
            logger().warning("%s; using the entry of %s instead", error.reason, self._path)
            return entry
        return self._from_auths(config, registry) if found is None else found

    def check(self) -> None:
        """Raise `InvalidInput` for a file that is there and cannot be read."""
        self._read()

    def _read(self) -> "_Configuration":
        try:
            data = self._path.read_bytes()
            text = data.decode(json.detect_encoding(data)).strip()
            config = first_json(text) if text else None
        except FileNotFoundError:
            return _Configuration()
        except NotADirectoryError as error:
            advice = "Set DOCKER_CONFIG to the folder that holds config.json, not to the file."
            raise InvalidInput(f"{self._path} is not readable: it is not in a folder", advice=advice) from error
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{self._path} is not readable as Docker's configuration", advice=_NEW_CONFIG) from error
        if config is None:
            return _Configuration()
        if not isinstance(config, dict):
            raise InvalidInput(
                f"{self._path} is not a JSON object, as Docker's configuration should be", advice=_NEW_CONFIG
            )
        return _Configuration(
            auths=self._typed(config, "auths", dict) or {},
            helpers=self._typed(config, "credHelpers", dict) or {},
            store=self._typed(config, "credsStore", str) or "",
        )

    def _typed(self, config: Mapping[str, Any], name: str, kind: type) -> Any:
        value = json_field(config, name)
        if value is not None and not isinstance(value, kind):
            raise InvalidInput(
                f"{name} in {self._path} must be {_KINDS[kind]}, not {type(value).__name__}", advice=_NEW_CONFIG
            )
        return value

    def _from_auths(self, config: "_Configuration", registry: str) -> Credentials | None:
        """The entry under one of the registry's names, else under a URL of it; None where there is none.

        A key with another path is for a part of the registry (``host/team``, as podman writes it) or another kind of
        token (``…/v1/refresh-token``), so it is never sent to the registry as a whole.
        """
        entry = _lookup(config.auths, [*_names(registry), *_urls(registry)])
        if entry is None:
            return None
        if not isinstance(entry, dict):
            raise InvalidInput(f"the entry for {registry} in {self._path} is not a JSON object", advice=_NEW_CONFIG)
        if token := json_field(entry, "registrytoken"):
            return Credentials(registry_token=SecretStr(str(token)))
        if token := json_field(entry, "identitytoken"):
            return Credentials(identity_token=SecretStr(str(token)))
        user, password = self._pair(entry, registry)
        # Docker sends nothing where one of the two is missing; a user's name alone is what an old helper leaves there.
        return Credentials(username=user, password=SecretStr(password)) if user and password else None

    def _pair(self, entry: Mapping[str, Any], registry: str) -> tuple[str, str]:
        encoded = json_field(entry, "auth")
        if not encoded:
            return str(json_field(entry, "username") or ""), str(json_field(entry, "password") or "")
        try:
            # As in Go, line breaks in base64 are ignored; encoders that pad with NUL were common once.
            decoded = base64.b64decode(re.sub(r"[\r\n]", "", encoded), validate=True).decode()
            user, colon, password = decoded.partition(":")
            if not user or not colon:
                raise ValueError
        except (TypeError, ValueError):
            # Without `from`: the cause would carry a part of the secret.
            raise InvalidInput(
                f"the auth entry for {registry} in {self._path} is not base64 of user:password in UTF-8",
                advice=f"Run `docker login {registry}` again.",
            ) from None
        return user, password.strip("\0")


@dataclass(frozen=True, slots=True)
class _Configuration:
    """What counts of Docker's configuration."""

    auths: Mapping[str, Any] = field(default_factory=dict)
    helpers: Mapping[str, Any] = field(default_factory=dict)
    store: str = ""

    def helper_for(self, registry: str) -> str:
        """The helper's name, empty for none: an empty one for this registry switches the store off, as for Docker."""
        own = _lookup(self.helpers, _names(registry))
        return self.store if own is None else str(own)


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


def _from_helper(config: _Configuration, registry: str) -> Credentials | None:
    helper = config.helper_for(registry)
    if not helper:
        return None
    found = next((login for name in _names(registry) if (login := ask_helper(helper, name)) is not None), None)
    if found is None:
        return None
    if found.is_token:
        return Credentials(identity_token=found.secret)
    return Credentials(username=found.username, password=found.secret)


def _names(registry: str) -> tuple[str, ...]:
    """What `docker login` and podman call a registry, the most usual name first."""
    if canonical_registry(registry) == DOCKER_HUB:
        return HUB_KEY, DOCKER_HUB, "index.docker.io", "registry-1.docker.io"
    return registry, f"https://{registry}"


def _urls(registry: str) -> Iterator[str]:
    """The URLs of a whole registry under which older tools wrote entries, in the order in which they count."""
    hosts = (DOCKER_HUB, *_HUB_HOSTS) if canonical_registry(registry) == DOCKER_HUB else (registry,)
    return (f"{scheme}{host}{path}" for host in hosts for scheme in _SCHEMES for path in _PATHS)


def _lookup(record: Mapping[str, Any], keys: Iterable[str]) -> Any:
    """The value of the first of the keys that is there; host names may differ in case. Independent of the order."""
    folded = {key.lower(): record[key] for key in sorted(record, reverse=True)}
    return next((record.get(key, folded.get(key.lower())) for key in keys if key.lower() in folded), None)
