"""The receiver's one configuration file (YAML): who may send, what starts what, and where Prefect is.

Every section refuses keys that it does not know, and every key may be given once. Secrets are named, not written.
`load` checks all that can be known before an event arrives: templates, deployments, parameters that no event can make
right.
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
    """The Prefect server, or a Cloud workspace, whose deployments are started."""

    api_url: HttpUrl
    auth_string: SecretSource | None = None
    api_key: SecretSource | None = None
    ui_url: HttpUrl | None = None
    timeout_s: float = Field(default=15, gt=0, le=120)
    give_up_after_s: float = Field(default=24 * 3600, gt=0)
    """In seconds during which the receiver runs, whatever the clock of the machine does."""
    poll_outcomes_every_s: float = Field(default=10, ge=0.05, le=600)
    watch_ended_days: float = Field(default=7, ge=0, le=365)
    """For how long a run that ended is polled: a changed outcome is reported again."""

    @field_validator("api_url")
    @classmethod
    def _api_url_is_one(cls, url: HttpUrl) -> HttpUrl:
        try:
            checked_url(str(url))
        except InvalidInput as error:
            raise ValueError("no address that can be looked up") from error
        return url

    def authorization(self) -> dict[str, str]:
        """The headers that authenticate a call, from the secret as it is now; raises `InvalidInput` without one."""
        if self.api_key is not None:
            return bearer(self.api_key.read_text())
        if self.auth_string is not None:
            return basic(self.auth_string.read())
        return {}


class Limits(Section):
    """Bounds of what a sender may cost."""

    body_bytes: int = Field(default=5 << 20, ge=1024, le=25 << 20)
    body_seconds: float = Field(default=10, gt=0, le=120)
    """For the head of a request, and again for its body."""
    connections_per_address: int = Field(default=64, ge=1, le=512)
    """At once, from one address (IPv6: one /64) that is not a trusted proxy; above it an idle one is closed."""
    requests_per_minute: int = Field(default=120, ge=1)
    """A source from one address, before anything is read."""
    events_per_minute: int = Field(default=60, ge=1)
    """Verified events of a source that are new and start something."""


class Retention(Section):
    """How long the outbox keeps what ended, in days during which the receiver runs."""

    runs_days: float = Field(default=90, ge=1)
    """Runs with their parameters and outcomes; younger than `watch_ended_days` none is deleted."""
    hashes_days: float | None = Field(default=None, ge=1)
    """Hashes of events, by which a replay is recognised; without a number they stay for good."""


class Listen(Section):
    """Where HTTP is served; TLS belongs to the proxy in front, unless both files are given."""

    host: str = "127.0.0.1"
    port: int = Field(default=4300, ge=0, le=65535)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: tuple[str, ...] = ()
    """Addresses whose X-Forwarded-For is believed."""


class Configuration(Section):
    """The whole file."""

    outbox: Path
    prefect: PrefectSettings
    listen: Listen = Listen()
    limits: Limits = Limits()
    retention: Retention = Retention()
    allow_loopback_hosts: bool = False
    """Accept events whose clone URL or registry is on this machine's loopback: for a forge on the same machine."""
    publications: Path | None = None
    """A publications file; each of its publications with a webhook rule is a rule of this configuration too."""
    sources: tuple[Source, ...] = Field(min_length=1)
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> Self:
        for what, names in (("sources", [each.name for each in self.sources]), ("rules", [r.name for r in self.rules])):
            if len(set(names)) != len(names):
                raise ValueError(f"two {what} have one name")
        known = {each.name for each in self.sources}
        unknown = sorted({name for rule in self.rules for name in rule.sources} - known)
        if unknown:
            raise ValueError(f"rules name sources that are not there: {', '.join(unknown)}")
        return self

    def source(self, name: str) -> Source | None:
        """The source of that name."""
        return next((each for each in self.sources if each.name == name), None)


def load(path: Path) -> Configuration:
    """Read and check a file; raises `InvalidInput` that names each fault."""
    document = _document(path)
    if wrong := list(reserved_keys(document)):
        lines = [f"  - {each}" for each in wrong]
        raise InvalidInput(f"the configuration {path} is not valid:\n" + "\n".join(lines), advice=_DESCRIBED)
    document = expanded(document, path.parent)
    try:
        return Configuration.model_validate(document)
    except ValidationError as error:
        faults = problems_of(error, unknown="there is no such key")
        places = [each.place for each in faults]
        # A rule that is wrong leaves a list too short as well; the rule's own fault says it.
        own = [each for each in faults if each.kind != "too_short" or not _has_inner(each.place, places)]
        lines = [f"  - {_place(each.place, document)}: {each.text}" for each in own[:20]]
        reason = f"the configuration {path} is not valid:\n" + "\n".join(lines)
        # Not as a cause: pydantic's words quote what was given, and somebody may have written a secret itself.
        raise InvalidInput(reason, advice=_DESCRIBED) from None


def _document(path: Path) -> dict[Any, Any]:
    """The mapping that a file holds; raises `InvalidInput` with the line where it is no YAML."""
    try:
        document = yaml.load(path.read_text(), Loader=StrictLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise InvalidInput(f"the configuration {path} cannot be read: {error.strerror}", advice=_DESCRIBED) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the configuration {path} is not UTF-8 text", advice=_DESCRIBED) from error
    except yaml.YAMLError as error:
        raise InvalidInput(f"the configuration {path} is not YAML: {fault_of(error)}", advice=_DESCRIBED) from error
    if not isinstance(document, dict):
        found = "is empty" if document is None else "has no keys at its top"
        raise InvalidInput(f"the configuration {path} {found}", advice=_DESCRIBED)
    return document


def _place(place: tuple[int | str, ...], document: Any) -> str:
    """Where a fault is: a rule or a source by its name where it has a sound one, else by its number."""
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
