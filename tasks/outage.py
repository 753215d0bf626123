"""Retry calls of Prefect's client while its server is unavailable: an outage of some minutes fails no run.

A server that rejects a call (401, 403) is available, so waiting does not help. Prefect's own client retries a request
for a minute or two before its error arrives here.
"""

import time
from collections.abc import Callable
from json import JSONDecodeError
from typing import TypeVar

import httpx

from soci_pipeline.errors import TEMPORARY_STATUSES
from soci_pipeline.log import logger
from soci_pipeline.prefect_rest.errors import PrefectRefused, PrefectUnavailable, advice_of
from soci_pipeline.retry import retry_after_s
from tasks.clock import Clock

OUTAGE_SECONDS = 300.0
PAUSE_SECONDS = 2.0
_REFUSALS = frozenset({httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN})

ERRORS = (httpx.TransportError, httpx.HTTPStatusError, JSONDecodeError)
"""The errors of Prefect's client during an outage, including PrefectHTTPStatusError.

JSONDecodeError comes from a proxy that answers instead of the server, with a page and status 200.
"""

T = TypeVar("T")


class Outage:
    """The duration of an outage, as seen by one caller."""

    def __init__(self, *, seconds: float = OUTAGE_SECONDS, clock: Clock = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._since: float | None = None

    def over(self) -> None:
        """Note that a call succeeded."""
        self._since = None

    def pause_after(self, error: httpx.TransportError | httpx.HTTPStatusError | JSONDecodeError) -> float:
        """Return the seconds to wait before the next call: those of ``Retry-After``, or 0.

        Raises `PrefectRefused` for a 401 or 403, and the error itself if it is not an outage or lasts too long;
        `PrefectUnavailable` if the responses are not JSON for too long.
        """
        wait = 0.0
        if isinstance(error, httpx.HTTPStatusError):
            status = error.response.status_code
            if status in _REFUSALS:
                raise PrefectRefused(
                    f"Prefect answered {status} to {error.request.method} {error.request.url.path}",
                    advice=advice_of(status),
                    status=status,
                ) from error
            if status not in TEMPORARY_STATUSES:
                raise error
            wait = retry_after_s(error.response.headers.get("Retry-After")) or 0.0
        now = self._clock()
        self._since = now if self._since is None else self._since
        if now + wait - self._since > self._seconds:
            if isinstance(error, JSONDecodeError):
                raise PrefectUnavailable(
                    "Prefect did not return valid JSON; another program may be listening there"
                ) from error
            raise error
        logger().warning("the Prefect server does not answer (%s); waiting", type(error).__name__)
        return wait


def retry_during_outage(call: Callable[[], T], *, seconds: float = OUTAGE_SECONDS) -> T:
    """Retry an idempotent call of Prefect's client while the server is unavailable.

    Raises `PrefectRefused` for a 401 or 403; after ``seconds`` the last error, or `PrefectUnavailable` if it is a
    JSONDecodeError.
    """
    outage = Outage(seconds=seconds)
    while True:
        try:
            return call()
        except ERRORS as error:
            time.sleep(max(PAUSE_SECONDS, outage.pause_after(error)))
