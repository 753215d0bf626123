"""The Standard Webhooks scheme: ID, timestamp and body are signed together (its specification, "Signature scheme").

GitLab's signing tokens and this project's generic source use it. The signed content is ``id.timestamp.body``, the
signature ``v1,<base64 of HMAC-SHA256>``; a header may hold several, separated by spaces. A key is written as
``whsec_<base64>``; a key without that prefix is used as it is.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from soci_pipeline.webhook.errors import SignatureRefused
from soci_pipeline.webhook.sources import Headers, any_equal, header
from soci_pipeline.webhook.sources.source import Schema

_PREFIX = b"whsec_"
_MAX_SIGNATURES = 10
TOLERANCE_S = 300.0
"""The default tolerance between the signed timestamp and now, in seconds."""


HEADER_SCHEMAS: dict[str, Schema] = {
    "webhook-id": {"type": "string", "minLength": 1, "maxLength": 256},
    "webhook-timestamp": {"type": "string", "pattern": "^[0-9]{1,12}$"},
    "webhook-signature": {"type": "string", "pattern": "^v1,[A-Za-z0-9+/]{43}=$"},
}
"""JSON schemas of the headers of a message."""


def key_bytes(secret: bytes) -> bytes:
    """Decode a secret to its key; raise ValueError if it starts with ``whsec_`` but is not base64 after that."""
    if not secret.startswith(_PREFIX):
        return secret
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("a secret that starts with whsec_ must continue with base64") from error


def sign(secret: bytes, *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of ``webhook-signature`` for a message."""
    content = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key_bytes(secret), content, hashlib.sha256)).decode()


def verify(
    headers: Headers, body: bytes, secrets: Sequence[bytes], now: float, *, tolerance_s: float = TOLERANCE_S
) -> bytes:
    """Verify the three headers; return the signed ID and body, which identify the message.

    The signed timestamp must be within ``tolerance_s`` of ``now`` (seconds since the epoch). It is not part of the
    result, since a sender that redelivers a message gives it a new timestamp.
    """
    message_id = header(headers, "webhook-id")
    timestamp = _timestamp(header(headers, "webhook-timestamp"))
    given = header(headers, "webhook-signature").split()[:_MAX_SIGNATURES]
    expected = [sign(secret, message_id=message_id, timestamp=timestamp, body=body).encode() for secret in secrets]
    matches = [any_equal(each.encode("latin-1", "replace"), expected) for each in given]
    if not any(matches):
        raise SignatureRefused("the signature does not match any of the keys")
    if abs(now - timestamp) > tolerance_s:
        raise SignatureRefused("the signed timestamp is too far from now")
    return message_id.encode() + b"." + body


def _timestamp(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise SignatureRefused("the header webhook-timestamp is not a number of seconds")
    return int(text)
