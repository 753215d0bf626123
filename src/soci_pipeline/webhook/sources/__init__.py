"""One module a kind of sender: what proves that an event is its own, and how it is read.

Each is a section of the configuration (`source.EventSource`). Header names are lower-case. Nothing is parsed before it
is verified.
"""

import hmac
from collections.abc import Iterable, Mapping

from soci_pipeline.webhook.errors import SignatureRefused

Headers = Mapping[str, str]


def any_equal(given: bytes, expected: Iterable[bytes]) -> bool:
    """Whether ``given`` is one of ``expected``; takes the same time whichever it is, or none."""
    found = False
    for each in expected:
        found |= hmac.compare_digest(given, each)
    return found


def header(headers: Headers, name: str) -> str:
    """A header that must be there; an absent or empty one is a refusal, never a pass."""
    value = headers.get(name, "").strip()
    if not value:
        raise SignatureRefused(f"the header {name} is missing")
    if len(value) > 4096:
        raise SignatureRefused(f"the header {name} is too long")
    return value
