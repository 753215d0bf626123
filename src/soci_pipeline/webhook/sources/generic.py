"""Events from custom senders: signed JSON in the Standard Webhooks scheme, which has libraries in most languages.

The body is an object with the fields of `PushEvent` or `ImageEvent`, including ``kind``; other fields are rejected.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, TypeAdapter, ValidationError

from soci_pipeline.webhook.events import Event, ImageEvent, PushEvent, StoredEvent, refuse
from soci_pipeline.webhook.secret_values import SecretSource, read_keys
from soci_pipeline.webhook.sources import Headers, standard
from soci_pipeline.webhook.sources.source import HttpSource, Keys, Schema

_ADAPTER: TypeAdapter[PushEvent | ImageEvent] = TypeAdapter(StoredEvent)


class GenericSource(HttpSource):
    """Signed JSON in the Standard Webhooks scheme."""

    kind: Literal["generic"]
    secrets: Keys
    tolerance_s: float = Field(default=standard.TOLERANCE_S, gt=0, le=3600)
    body_schema: ClassVar[Schema] = {
        "oneOf": [{"$ref": "#/components/schemas/Push"}, {"$ref": "#/components/schemas/Image"}]
    }

    @property
    def keys(self) -> tuple[SecretSource, ...]:
        return self.secrets

    @property
    def header_schemas(self) -> Mapping[str, Schema]:
        return standard.HEADER_SCHEMAS

    def verify(self, headers: Headers, body: bytes, now: float) -> bytes:
        return standard.verify(headers, body, read_keys(self.keys), now, tolerance_s=self.tolerance_s)

    def parse(self, headers: Headers, body: bytes) -> Event:  # noqa: ARG002 - the body names the kind of event
        return parse(body)


def parse(body: bytes) -> Event:
    """Parse the event; raise `EventRefused`."""
    try:
        return _ADAPTER.validate_json(body)
    except ValidationError as error:
        raise refuse(error) from None
