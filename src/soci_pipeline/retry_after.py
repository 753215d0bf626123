"""The header Retry-After (RFC 9110, 10.2.3): how long a server wants its clients to wait."""

import time
from email.utils import parsedate_to_datetime

_MOST_S = 86_400.0


def retry_after_s(value: str | None, *, now: float | None = None) -> float | None:
    """The seconds to wait, at most a day; None where the header is missing or invalid. ``now`` is the Unix time."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), _MOST_S)
    try:
        wait = parsedate_to_datetime(text).timestamp() - (time.time() if now is None else now)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, wait), _MOST_S)
