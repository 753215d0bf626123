"""Calls of Prefect's client while its server is away: an absence of some minutes fails nothing.

A server that refuses (401, 403) is not away, and nothing is gained by waiting. Prefect's own client repeats a request
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
"""What a call of Prefect's client may end with while the server is away, PrefectHTTPStatusError among them.

JSONDecodeError comes from a proxy that answers in the server's place, with a page and the status 200.
"""

T = TypeVar("T")


class Outage:
    """How long the server has been away, seen from one caller."""

    def __init__(self, *, seconds: float = OUTAGE_SECONDS, clock: Clock = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._since: float | None = None

    def over(self) -> None:
        """Note that a call came through."""
        self._since = None

    def pause_after(self, error: httpx.TransportError | httpx.HTTPStatusError | JSONDecodeError) -> float:
        """Return the seconds to wait before the next call: those of ``Retry-After``, or 0.

        Raises `PrefectRefused` for a refusal, and the error itself where it is no outage or lasts too long;
        `PrefectUnavailable` where the answers are not JSON for too long.
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
                raise PrefectUnavailable("Prefect's answer is not JSON; something else may listen there") from error
            raise error
        logger().warning("the Prefect server does not answer (%s); still waiting", type(error).__name__)
        return wait


def patiently(call: Callable[[], T], *, seconds: float = OUTAGE_SECONDS) -> T:
    """Make a call of Prefect's client that can be repeated, again while the server is away.

    Raises `PrefectRefused` for a refusal, and the last error after ``seconds``, `PrefectUnavailable` for one of JSON.
    """
    outage = Outage(seconds=seconds)
    while True:
        try:
            return call()
        except ERRORS as error:
            time.sleep(max(PAUSE_SECONDS, outage.pause_after(error)))
