"""What can go wrong between this library and Prefect's REST API."""

import contextlib
from collections.abc import Iterator

from soci_pipeline.errors import StackError

ADVICE = {
    401: "Check the credentials for Prefect: those of the receiver, PREFECT_API_AUTH_STRING or PREFECT_API_KEY.",
    403: "The credentials need the right to create and read runs.",
    404: "Deploy it: `prefect --no-prompt deploy --all` from the project's folder.",
}
"""What helps, by the status of the answer."""


class PrefectUnavailable(StackError):
    """Prefect does not answer, or answers that it cannot just now (``503 database is locked`` among others).

    ``retry_after`` is what it says about the next attempt.
    """

    default_advice = "Start the Prefect server, or wait: the same call may succeed later."

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason, temporary=True)
        self.retry_after = retry_after


class PrefectRefused(StackError):
    """Prefect answered, and does not do it. ``temporary`` where setting Prefect up right would change that.

    ``status`` is that of its answer; None where that was a success whose content cannot be meant.
    """

    def __init__(
        self, reason: str, *, advice: str | None = None, temporary: bool = False, status: int | None = None
    ) -> None:
        super().__init__(reason, advice=advice, temporary=temporary)
        self.status = status


def advice_of(status: int) -> str | None:
    """What helps where Prefect answers with this status."""
    return ADVICE.get(status)


@contextlib.contextmanager
def expected_shape() -> Iterator[None]:
    """Raise `PrefectUnavailable` where an answer is JSON of another shape than Prefect's."""
    try:
        yield
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise PrefectUnavailable("Prefect's answer has an unknown shape; something else may listen there") from error
