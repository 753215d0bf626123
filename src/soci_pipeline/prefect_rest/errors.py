"""Errors of calls to Prefect's REST API."""

import contextlib
from collections.abc import Iterator

from soci_pipeline.errors import StackError

ADVICE = {
    401: "Check the credentials for Prefect: those of the receiver, PREFECT_API_AUTH_STRING or PREFECT_API_KEY.",
    403: "The credentials must have permission to create and read runs.",
    404: "Deploy it: `prefect --no-prompt deploy --all` from the project's folder.",
}
"""The advice for each status of a response."""


class PrefectUnavailable(StackError):
    """Prefect does not respond, or responds that it is temporarily unavailable (such as ``503 database is locked``).

    ``retry_after`` is the delay in seconds from its Retry-After header.
    """

    default_advice = "Start the Prefect server, or try again later."

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason, temporary=True)
        self.retry_after = retry_after


class PrefectRefused(StackError):
    """Prefect rejected a call. ``temporary`` if correcting Prefect's setup may make the same call succeed.

    ``status`` is the HTTP status; None if there was no response, or a successful one with invalid content.
    """

    def __init__(
        self, reason: str, *, advice: str | None = None, temporary: bool = False, status: int | None = None
    ) -> None:
        super().__init__(reason, advice=advice, temporary=temporary)
        self.status = status


def advice_of(status: int) -> str | None:
    """Return the advice for a response with this status, or None."""
    return ADVICE.get(status)


@contextlib.contextmanager
def expected_shape() -> Iterator[None]:
    """Raise `PrefectUnavailable` if JSON processed in the block does not have the shape of Prefect's responses."""
    try:
        yield
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise PrefectUnavailable(
            "Prefect returned an unexpected document; another program may be listening there"
        ) from error
