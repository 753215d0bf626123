"""Base classes of the senders: configuration sections that verify and parse the events of one kind of sender.

To add one, write a module next to this with such a section, and add it to `soci_pipeline.webhook.configuration.Source`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, field_validator

from soci_pipeline.hosts import is_loopback
from soci_pipeline.webhook.events import Event, Ignored
from soci_pipeline.webhook.secret_values import SecretSource
from soci_pipeline.webhook.sources import Headers

NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
Schema = Mapping[str, Any]
Keys = Annotated[tuple[SecretSource, ...], Field(min_length=1, max_length=2)]
"""One secret, or two during a rotation."""


class Section(BaseModel):
    """A section of the configuration; rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Fields(BaseModel):
    """A part of an event: known fields are validated strictly, unknown ones are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class StatusSettings(Section):
    """How outcomes are reported to the forge; the token needs permission to write commit statuses, and no other."""

    token: SecretSource
    api_url: HttpUrl
    context: str = Field(default="soci-pipeline", min_length=1, max_length=100)

    @field_validator("api_url")
    @classmethod
    def _token_is_not_sent_in_plain_text(cls, url: HttpUrl) -> HttpUrl:
        if url.scheme != "https" and not is_loopback(url.host or ""):
            raise ValueError("must be an https URL, because http would expose the token (except on loopback)")
        return url


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """The outcome of a push: ``outcome`` is the state type of its run, ``name`` distinguishes statuses of a commit."""

    project: str
    commit: str
    outcome: str
    name: str
    text: str
    link: str | None

    def with_link(self, **fields: str) -> dict[str, str]:
        """Return the fields, with ``target_url`` if there is a link."""
        return fields if self.link is None else fields | {"target_url": self.link}


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """The request that sets a commit status: a POST of JSON to a path below the API's base URL."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, str]


class EventSource(Section, ABC):
    """A sender of events.

    A subclass overrides ``kind`` with a `Literal`. One delivery is one event: a delivery with several refs must be
    rejected or split.
    """

    kind: str
    name: str = Field(pattern=NAME)
    push_header: ClassVar[tuple[str, str] | None] = None
    """The header (lower-case) that names the event, and its value for a push; None if the body names it."""

    @abstractmethod
    def parse(self, headers: Headers, body: bytes) -> Event | Ignored:
        """Parse a verified event; raise `EventRefused`."""


class HttpSource(EventSource, ABC):
    """A sender that delivers events over HTTP, each with a signature or token."""

    body_schema: ClassVar[Schema] = {"type": "object"}
    """JSON schema of an event's body, for the OpenAPI description."""

    @property
    @abstractmethod
    def keys(self) -> tuple[SecretSource, ...]:
        """The secrets that events are verified with."""

    @property
    @abstractmethod
    def header_schemas(self) -> Mapping[str, Schema]:
        """JSON schemas of the required headers, by name."""

    @abstractmethod
    def verify(self, headers: Headers, body: bytes, now: float) -> bytes:
        """Verify an event; return the bytes that identify it if it is delivered again.

        ``now`` is in seconds since the epoch. Raises `SignatureRefused`, and `InvalidInput` if no key can be read.
        """


class StatusSource(HttpSource, ABC):
    """A forge that shows the outcome of a push as a commit status."""

    status: StatusSettings | None = None

    @abstractmethod
    def status_request(self, status: CommitStatus, token: str) -> StatusRequest:
        """Build the request that sets a status; ``token`` has permission to write commit statuses."""
