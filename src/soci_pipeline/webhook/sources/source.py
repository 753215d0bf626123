"""What every sender is to the receiver: a section of the configuration that knows how its events are verified and read.

A new one is a module beside this with such a section, and its name in `soci_pipeline.webhook.configuration.Source`.
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
"""One secret, or two while the sender changes from one to the other."""


class Section(BaseModel):
    """A part of the configuration; refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Fields(BaseModel):
    """A part of an event: strict in what is known, and free to hold more."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class StatusSettings(Section):
    """How the outcome goes back to the forge: a token that may write commit statuses, and nothing else."""

    token: SecretSource
    api_url: HttpUrl
    context: str = Field(default="soci-pipeline", min_length=1, max_length=100)

    @field_validator("api_url")
    @classmethod
    def _token_is_not_sent_in_plain_text(cls, url: HttpUrl) -> HttpUrl:
        if url.scheme != "https" and not is_loopback(url.host or ""):
            raise ValueError("must be an https URL: over http the token would be readable on its way (loopback aside)")
        return url


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """What became of a push: ``outcome`` is the type of the run's state, ``name`` tells statuses of a commit apart."""

    project: str
    commit: str
    outcome: str
    name: str
    text: str
    link: str | None

    def with_link(self, **fields: str) -> dict[str, str]:
        """The fields, and ``target_url`` where there is a link."""
        return fields if self.link is None else fields | {"target_url": self.link}


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """How a forge is told of a commit's status: a POST of JSON to a path below the address of its API."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, str]


class EventSource(Section, ABC):
    """A sender of events.

    A subclass overrides ``kind`` with a `Literal`. One delivery is one event: a sender that lists several refs in one
    has to be rejected or split.
    """

    kind: str
    name: str = Field(pattern=NAME)
    push_header: ClassVar[tuple[str, str] | None] = None
    """The header (lower-case) that names an event, and its value for a push; None where the body says it."""

    @abstractmethod
    def parse(self, headers: Headers, body: bytes) -> Event | Ignored:
        """What a verified event says; raises `EventRefused`."""


class HttpSource(EventSource, ABC):
    """A sender whose events come over HTTP, each with a proof that it is this sender's."""

    body_schema: ClassVar[Schema] = {"type": "object"}
    """JSON schema of an event's body, for the OpenAPI description."""

    @property
    @abstractmethod
    def keys(self) -> tuple[SecretSource, ...]:
        """What proofs are made with."""

    @property
    @abstractmethod
    def header_schemas(self) -> Mapping[str, Schema]:
        """JSON schemas of the headers that an event needs, by their names."""

    @abstractmethod
    def verify(self, headers: Headers, body: bytes, now: float) -> bytes:
        """What a verified event is recognised by when it comes again.

        ``now`` is in seconds since the epoch. Raises `SignatureRefused`, and `InvalidInput` where no key can be read.
        """


class StatusSource(HttpSource, ABC):
    """A forge that shows what became of a push beside its commit."""

    status: StatusSettings | None = None

    @abstractmethod
    def status_request(self, status: CommitStatus, token: str) -> StatusRequest:
        """How this forge is told; ``token`` may write commit statuses."""
