"""The receiver's configuration file (YAML): who may send events, which rules match them, and where Prefect is.

Unknown and duplicate keys are rejected. Secrets are named, not written in the file. `load` checks everything that is
known before an event arrives: templates, deployments, and parameters that would be invalid for every event.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, HttpUrl, ValidationError, field_validator, model_validator

from soci_pipeline.errors import InvalidInput
from soci_pipeline.prefect_rest.access import basic, bearer, checked_url
from soci_pipeline.strict_yaml import StrictLoader, fault_of
from soci_pipeline.validation import problems_of
from soci_pipeline.webhook.publication_rules import expanded, reserved_keys
from soci_pipeline.webhook.rule import Rule
from soci_pipeline.webhook.secret_values import SecretSource
from soci_pipeline.webhook.sources.eventbridge import QueueSource
from soci_pipeline.webhook.sources.generic import GenericSource
from soci_pipeline.webhook.sources.github import GitHubSource
from soci_pipeline.webhook.sources.gitlab import GitLabSource
from soci_pipeline.webhook.sources.source import NAME, Section

_DESCRIBED = "The page Triggers of the project's documentation describes the file, with an example."
Source = Annotated[GitHubSource | GitLabSource | GenericSource | QueueSource, Field(discriminator="kind")]


class PrefectSettings(Section):
    """The Prefect server or Cloud workspace in which deployments are run."""

    api_url: HttpUrl
    auth_string: SecretSource | None = None
    api_key: SecretSource | None = None
    ui_url: HttpUrl | None = None
    timeout_s: float = Field(default=15, gt=0, le=120)
    give_up_after_s: float = Field(default=24 * 3600, gt=0)
    """In seconds of the receiver's running time, independent of the system clock."""
    poll_outcomes_every_s: float = Field(default=10, ge=0.05, le=600)
    watch_ended_days: float = Field(default=7, ge=0, le=365)
    """How long a finished run is still polled: if its outcome changes, it is reported again."""

    @field_validator("api_url")
    @classmethod
    def _api_url_is_one(cls, url: HttpUrl) -> HttpUrl:
        try:
            checked_url(str(url))
        except InvalidInput as error:
            raise ValueError("not a resolvable host name") from error
        return url

    def authorization(self) -> dict[str, str]:
        """Return the authentication headers, reading the secret anew; raise `InvalidInput` if it cannot be read."""
        if self.api_key is not None:
            return bearer(self.api_key.read_text())
        if self.auth_string is not None:
            return basic(self.auth_string.read())
        return {}


class Limits(Section):
    """Limits on what one sender may consume."""

    body_bytes: int = Field(default=5 << 20, ge=1024, le=25 << 20)
    body_seconds: float = Field(default=10, gt=0, le=120)
    """Timeout for the head of a request, and again for its body."""
    connections_per_address: int = Field(default=64, ge=1, le=512)
    """Connections at once from an address (IPv6: a /64) that is not a trusted proxy; above it an idle one is closed."""
    requests_per_minute: int = Field(default=120, ge=1)
    """Requests per source and client address, counted before the body is read."""
    events_per_minute: int = Field(default=60, ge=1)
    """Verified events per source that are new and start a run."""


class Retention(Section):
    """How long the outbox keeps finished runs and event hashes, in days of the receiver's running time."""

    runs_days: float = Field(default=90, ge=1)
    """For runs with their parameters and outcomes; no run younger than `watch_ended_days` is deleted."""
    hashes_days: float | None = Field(default=None, ge=1)
    """For the event hashes that detect replays; None keeps them forever."""


class Listen(Section):
    """The HTTP listener; the proxy in front of it terminates TLS unless both TLS files are set."""

    host: str = "127.0.0.1"
    port: int = Field(default=4300, ge=0, le=65535)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose X-Forwarded-For is trusted."""


class Configuration(Section):
    """The whole configuration file."""

    outbox: Path
    prefect: PrefectSettings
    listen: Listen = Listen()
    limits: Limits = Limits()
    retention: Retention = Retention()
    allow_loopback_hosts: bool = False
    """Accept events whose clone URL or registry is a loopback host: for a forge on the same machine."""
    publications: Path | None = None
    """A publications file; each publication in it that has a webhook rule becomes a rule of this configuration too."""
    sources: tuple[Source, ...] = Field(min_length=1)
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> Self:
        for what, names in (("sources", [each.name for each in self.sources]), ("rules", [r.name for r in self.rules])):
            if len(set(names)) != len(names):
                raise ValueError(f"two {what} have the same name")
        known = {each.name for each in self.sources}
        unknown = sorted({name for rule in self.rules for name in rule.sources} - known)
        if unknown:
            raise ValueError(f"rules name unknown sources: {', '.join(unknown)}")
        return self

    def source(self, name: str) -> Source | None:
        """Return the source with this name, or None."""
        return next((each for each in self.sources if each.name == name), None)


def load(path: Path) -> Configuration:
    """Read and validate a configuration file; raise `InvalidInput` that lists the problems."""
    document = _document(path)
    if wrong := list(reserved_keys(document)):
        lines = [f"  - {each}" for each in wrong]
        raise InvalidInput(f"the configuration {path} is not valid:\n" + "\n".join(lines), advice=_DESCRIBED)
    document = expanded(document, path.parent)
    try:
        return Configuration.model_validate(document)
    except ValidationError as error:
        faults = problems_of(error, unknown="unknown key")
        places = [each.place for each in faults]
        # An invalid rule also makes its list too short; report only the rule's problem.
        own = [each for each in faults if each.kind != "too_short" or not _has_inner(each.place, places)]
        lines = [f"  - {_place(each.place, document)}: {each.text}" for each in own[:20]]
        reason = f"the configuration {path} is not valid:\n" + "\n".join(lines)
        # `from None`: pydantic's message quotes the input, which may contain a secret written by mistake.
        raise InvalidInput(reason, advice=_DESCRIBED) from None


def _document(path: Path) -> dict[Any, Any]:
    """Parse the file as a YAML mapping; raise `InvalidInput`, with the line if it is not YAML."""
    try:
        document = yaml.load(path.read_text(), Loader=StrictLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise InvalidInput(f"the configuration {path} cannot be read: {error.strerror}", advice=_DESCRIBED) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the configuration {path} is not UTF-8 text", advice=_DESCRIBED) from error
    except yaml.YAMLError as error:
        raise InvalidInput(
            f"the configuration {path} is not valid YAML: {fault_of(error)}", advice=_DESCRIBED
        ) from error
    if not isinstance(document, dict):
        found = "is empty" if document is None else "has no top-level keys"
        raise InvalidInput(f"the configuration {path} {found}", advice=_DESCRIBED)
    return document


def _place(place: tuple[int | str, ...], document: Any) -> str:
    """Format the location of a problem: a rule or source by its name if that is valid, else by its index."""
    if place[:1] in (("rules",), ("sources",)) and len(place) > 1:
        kind, number, *inner = place
        entries = document[kind]
        name = _name_of(entries[int(number)]) if isinstance(entries, list) else None
        if name is not None:
            return ".".join([str(kind).removesuffix("s") + f" {name}", *map(str, inner)])
    return ".".join(map(str, place)) or "file"


def _name_of(entry: Any) -> str | None:
    name = entry.get("name") if isinstance(entry, dict) else None
    return name if isinstance(name, str) and re.fullmatch(NAME, name) else None


def _has_inner(place: tuple[int | str, ...], places: Sequence[tuple[int | str, ...]]) -> bool:
    return any(len(each) > len(place) and each[: len(place)] == place for each in places)
