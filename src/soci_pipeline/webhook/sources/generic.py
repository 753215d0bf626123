"""A sender of one's own: signed JSON in the Standard Webhooks scheme, for which most languages have a library.

The body is one object with the fields of `PushEvent` or `ImageEvent`, ``kind`` among them; nothing else is taken.
"""

from pydantic import TypeAdapter, ValidationError

from soci_pipeline.webhook.events import Event, ImageEvent, PushEvent, StoredEvent, refuse
from soci_pipeline.webhook.sources import Headers, standard

verify = standard.verify

_ADAPTER: TypeAdapter[PushEvent | ImageEvent] = TypeAdapter(StoredEvent)


def parse(headers: Headers, body: bytes) -> Event:  # noqa: ARG001 - the body says what it is
    """Read the event."""
    try:
        return _ADAPTER.validate_json(body)
    except ValidationError as error:
        raise refuse(error) from None
