"""Retry-After, and trying again: how often, for which errors, and for how long."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from soci_pipeline.errors import SociPipelineError
from soci_pipeline.retry import Deadline, FailuresInARow, is_temporary, retry_after_s, with_retries


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("7", 7),
        (" 7 ", 7),
        ("0", 0),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("9" * 400, 86_400),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0),
        ("Fri, 01 Jan 9999 00:00:00 GMT", 86_400),
    ],
)
def test_seconds_and_dates_are_read_and_bounded(value: str | None, expected: float | None) -> None:
    assert retry_after_s(value, now=60.0) == expected


@dataclass(frozen=True)
class AtOnce:
    attempts: int = 3

    def backoff(self, attempt: int) -> float:
        return 0.0


def failing(times: int, *, temporary: bool, retry_after: float | None = None) -> tuple[list[int], Callable[[], str]]:
    """Work that fails some times before it succeeds, and the list that counts its calls."""
    calls: list[int] = []

    def work() -> str:
        calls.append(1)
        if len(calls) <= times:
            error = SociPipelineError(f"failure {len(calls)}", temporary=temporary)
            error.retry_after = retry_after
            raise error
        return "done"

    return calls, work


def test_work_is_tried_again_until_the_attempts_are_used_up() -> None:
    _, work = failing(2, temporary=True)
    assert with_retries(work, AtOnce(), Deadline(5)) == "done"
    calls, work = failing(3, temporary=True)
    with pytest.raises(SociPipelineError, match="failure 3"):
        with_retries(work, AtOnce(), Deadline(5))
    assert len(calls) == 3


def test_an_error_that_lasts_is_raised_at_once_unless_the_caller_doubts_it() -> None:
    calls, work = failing(1, temporary=False)
    with pytest.raises(SociPipelineError, match="failure 1"):
        with_retries(work, AtOnce(), Deadline(5))
    assert len(calls) == 1
    _, work = failing(1, temporary=False)
    assert with_retries(work, AtOnce(), Deadline(5), retriable=lambda error: True) == "done"


def test_an_error_is_raised_where_the_deadline_would_pass_before_the_next_attempt() -> None:
    calls, work = failing(1, temporary=True, retry_after=60.0)
    with pytest.raises(SociPipelineError, match="failure 1"):
        with_retries(work, AtOnce(), Deadline(5))
    assert len(calls) == 1


def test_after_progress_all_attempts_are_there_again() -> None:
    failures, error = FailuresInARow(AtOnce(), Deadline(5)), SociPipelineError("cut", temporary=True)
    assert [failures.is_last(error, is_temporary) for _ in range(2)] == [False, False]
    failures.forget()
    assert [failures.is_last(error, is_temporary) for _ in range(3)] == [False, False, True]
