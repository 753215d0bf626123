"""One module for each kind of sender: how its events are verified and parsed.

Each is a section of the configuration (`source.EventSource`). Header names are lower-case. Nothing is parsed before it
is verified.
"""

import hmac
from collections.abc import Iterable, Mapping

from soci_pipeline.webhook.errors import SignatureRefused

Headers = Mapping[str, str]


def any_equal(given: bytes, expected: Iterable[bytes]) -> bool:
    """Whether ``given`` equals one of ``expected``, in a time that does not depend on which one, or on a match."""
    found = False
    for each in expected:
        found |= hmac.compare_digest(given, each)
    return found


def header(headers: Headers, name: str) -> str:
    """Return a required header; raise `SignatureRefused` if it is missing, empty or too long."""
    value = headers.get(name, "").strip()
    if not value:
        raise SignatureRefused(f"the header {name} is missing")
    if len(value) > 4096:
        raise SignatureRefused(f"the header {name} is too long")
    return value
