"""Registry credentials from the environment, Docker's configuration and credential helpers, or a custom provider.

Secrets are held as `SecretStr` from the moment they are read; they never reach argv, a log or an exception.
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
"""Key of Docker Hub in Docker's configuration."""
_NEW_CONFIG = "Correct or remove the file; `docker login` writes a new one."
_HUB_HOSTS = ("index.docker.io", "registry-1.docker.io")
_SCHEMES = ("https://", "http://", "")
_PATHS = ("", "/", "/v1/", "/v1", "/v2/", "/v2")
_KINDS: Mapping[type, str] = {dict: "a JSON object", str: "a string"}


@dataclass(frozen=True, slots=True)
class Credentials:
    """A username and password, or a token.

    An identity token is exchanged for access tokens; a registry token is sent unchanged.
    """

    username: str = ""
    password: SecretStr | None = None
    identity_token: SecretStr | None = None
    registry_token: SecretStr | None = None
    origin: str | None = field(default=None, compare=False)
    """Names of the environment variables the credentials came from, for the advice when the registry rejects them."""

    def __post_init__(self) -> None:
        secrets = (self.password, self.identity_token, self.registry_token)
        values = [self.username, *(secret.get_secret_value() for secret in secrets if secret is not None)]
        if any("\udc80" <= letter <= "\udfff" for value in values for letter in value):
            raise CredentialsRefused(f"credentials for a registry are not UTF-8{self._origin_suffix}")

    @property
    def _origin_suffix(self) -> str:
        return f" ({self.origin})" if self.origin else ""

    def basic(self) -> str | None:
        """Return the value of a Basic Authorization header, or None if there is no password."""
        if self.password is None:
            return None
        pair = f"{self.username}:{self.password.get_secret_value()}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


class CredentialProvider(Protocol):
    """Provides the credentials for a registry (``host[:port]``), or None if it has none.

    After a registry rejects the credentials, the client calls `forget` and then `credentials_for` again. Providers
    that cache tokens drop them in `forget`.
    """

    def credentials_for(self, registry: str) -> Credentials | None:
        """Return the credentials for one registry, or None."""

    def forget(self, registry: str) -> None:
        """Discard cached credentials, because the registry rejected the last ones; provide fresh ones if possible."""


class _Stored:
    """Base of providers that read the credentials on every call and cache nothing."""

    def forget(self, registry: str) -> None:
        """Do nothing: the next call reads the credentials again."""


class FixedCredentials(_Stored):
    """Fixed credentials for one registry, or for all."""

    def __init__(self, credentials: Credentials, *, registry: str | None = None) -> None:
        self._credentials = credentials
        self._registry = registry

    def credentials_for(self, registry: str) -> Credentials | None:
        """Return the credentials, or None if they are for another registry."""
        return self._credentials if self._registry in (None, registry) else None


class Environment(_Stored):
    """Credentials from ``SOCI_PIPELINE_REGISTRY_USERNAME`` and ``…_PASSWORD`` (or ``…_TOKEN``, an identity token).

    ``SOCI_PIPELINE_REGISTRY`` names the only registry (``host[:port]``) that receives them. If it, the username or
    the password is missing, `CredentialsRefused` names the missing variable.
    """

    PREFIX = "SOCI_PIPELINE_REGISTRY"

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment

    def credentials_for(self, registry: str) -> Credentials | None:
        """Return the credentials from the environment, or None if they are not for that registry."""
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
                f"{there} is set in the environment, but {missing} is not",
                advice=f"Set {missing} as well, or unset {there} to use the login of `docker login`.",
            )
        return None

    def _unbound(self, bound_to: str, origin: str) -> CredentialsRefused:
        if bound_to:
            # Do not quote the value: a URL may contain a password.
            reason = f"{self.PREFIX} is not a registry, so {origin} cannot be used"
        else:
            reason = f"{self.PREFIX} is not set, so no registry receives {origin}"
        return CredentialsRefused(
            reason,
            advice=f"Set {self.PREFIX} to the registry that this login is for, as host or host:port without a "
            "scheme, for example registry.example.com.",
        )


def docker_config() -> Path:
    """Return the path of Docker's ``config.json`` in ``$DOCKER_CONFIG`` or ``~/.docker``; the file may not exist."""
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else _home() / ".docker") / "config.json"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        # HOME is not set and the user has no passwd entry, as in some containers.
        return Path("/")


class DockerConfig(_Stored):
    """Credentials from Docker's ``config.json``: ``credHelpers``, then ``credsStore``, then ``auths``.

    ``path`` defaults to `docker_config`. A missing or empty file means no credentials; an invalid one raises
    `InvalidInput`. As in Docker, if the helper fails, an entry in ``auths`` is used; without one, the error is raised.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or docker_config()

    def credentials_for(self, registry: str) -> Credentials | None:
        """Return the credentials that `docker login` stored for that registry, or None."""
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
        """Raise `InvalidInput` if the file exists but cannot be read or parsed."""
        self._read()

    def _read(self) -> "_Configuration":
        try:
            data = self._path.read_bytes()
            text = data.decode(json.detect_encoding(data)).strip()
            config = first_json(text) if text else None
        except FileNotFoundError:
            return _Configuration()
        except NotADirectoryError as error:
            advice = "Set DOCKER_CONFIG to the folder that contains config.json, not to the file."
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
        """Return the credentials stored under one of the registry's names, else under one of its URLs, or None.

        A key with any other path is for a part of the registry (``host/team``, as podman writes it) or for another
        kind of token (``…/v1/refresh-token``), so it is never used for the whole registry.
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
        # Docker sends no credentials if either is missing; old helpers leave a username alone in this entry.
        return Credentials(username=user, password=SecretStr(password)) if user and password else None

    def _pair(self, entry: Mapping[str, Any], registry: str) -> tuple[str, str]:
        encoded = json_field(entry, "auth")
        if not encoded:
            return str(json_field(entry, "username") or ""), str(json_field(entry, "password") or "")
        try:
            # Go ignores line breaks in base64; some old encoders pad the password with NUL bytes.
            decoded = base64.b64decode(re.sub(r"[\r\n]", "", encoded), validate=True).decode()
            user, colon, password = decoded.partition(":")
            if not user or not colon:
                raise ValueError
        except (TypeError, ValueError):
            # `from None`, because the cause would contain a part of the secret.
            raise InvalidInput(
                f"the auth entry for {registry} in {self._path} is not base64 of user:password in UTF-8",
                advice=f"Run `docker login {registry}` again.",
            ) from None
        return user, password.strip("\0")


@dataclass(frozen=True, slots=True)
class _Configuration:
    """The fields of Docker's configuration that are used here."""

    auths: Mapping[str, Any] = field(default_factory=dict)
    helpers: Mapping[str, Any] = field(default_factory=dict)
    store: str = ""

    def helper_for(self, registry: str) -> str:
        """Return the credential helper's name, or "" for none.

        As in Docker, an empty ``credHelpers`` entry for the registry disables ``credsStore``.
        """
        own = _lookup(self.helpers, _names(registry))
        return self.store if own is None else str(own)


class CredentialChain:
    """Tries several providers in order and uses the first credentials."""

    def __init__(self, *providers: CredentialProvider) -> None:
        self._providers = providers

    def credentials_for(self, registry: str) -> Credentials | None:
        """Return the first credentials that a provider has, or None."""
        answers = (provider.credentials_for(registry) for provider in self._providers)
        return next((answer for answer in answers if answer is not None), None)

    def forget(self, registry: str) -> None:
        """Call `forget` on every provider, because the source of the rejected credentials is unknown."""
        for provider in self._providers:
            provider.forget(registry)


def default_credentials() -> CredentialProvider:
    """Return a chain of the environment, then Docker's configuration."""
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
    """Return the keys that `docker login` and podman use for a registry, the most common first."""
    if canonical_registry(registry) == DOCKER_HUB:
        return HUB_KEY, DOCKER_HUB, "index.docker.io", "registry-1.docker.io"
    return registry, f"https://{registry}"


def _urls(registry: str) -> Iterator[str]:
    """Yield the URLs that older tools use as keys for a whole registry, in order of precedence."""
    hosts = (DOCKER_HUB, *_HUB_HOSTS) if canonical_registry(registry) == DOCKER_HUB else (registry,)
    return (f"{scheme}{host}{path}" for host in hosts for scheme in _SCHEMES for path in _PATHS)


def _lookup(record: Mapping[str, Any], keys: Iterable[str]) -> Any:
    """Return the value of the first of the keys that exists, or None.

    An exact match wins over one that ignores case. The result does not depend on the order of the record.
    """
    folded = {key.lower(): record[key] for key in sorted(record, reverse=True)}
    return next((record.get(key, folded.get(key.lower())) for key in keys if key.lower() in folded), None)
