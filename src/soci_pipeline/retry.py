"""Retries: back-off with jitter, deadlines, Retry-After, and cancelled work."""

import logging
import random
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from soci_pipeline.errors import DeadlineExceeded, SociPipelineError
from soci_pipeline.log import logger

_MOST_S = 86_400.0
_QUIET_SECONDS = 5.0
_PAUSE_S = 1.0
_Result = TypeVar("_Result")
# A separate generator: the shared one may be seeded, and waits that are equal everywhere spread no load.
_CHANCE = random.SystemRandom()


class Attempts(Protocol):
    """The number of attempts, and the seconds between two of them (attempts are numbered from 0)."""

    @property
    def attempts(self) -> int: ...

    def backoff(self, attempt: int) -> float: ...


def retry_after_s(value: str | None, *, now: float | None = None) -> float | None:
    """Parse Retry-After into seconds, at most a day; None if missing or invalid. ``now`` is Unix time."""
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


def delay_s(attempts: int, *, first_s: float = 0.5, most_s: float = 60.0) -> float:
    """Exponential back-off with jitter: after ``attempts`` failures (from 1), half to all of the step."""
    step = min(most_s, first_s * 2.0 ** min(attempts - 1, 20))
    return float(step) * _CHANCE.uniform(0.5, 1.0)


def full_jitter(attempt: int, *, first: float, most: float) -> float:
    """Exponential back-off with full jitter: after ``attempt`` failures (from 0), anything up to the step."""
    return _CHANCE.uniform(0, min(most, first * 2**attempt))


class Stopped(SociPipelineError):
    """Work was cancelled; the error that caused this has the reason."""


class Deadline:
    """The deadline of an operation, shared by everything it does."""

    def __init__(self, seconds: float, *, stop: threading.Event | None = None) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._stop = stop or threading.Event()

    @property
    def left(self) -> float:
        """The seconds that remain; 0 after the deadline."""
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raise `DeadlineExceeded` after the deadline, `Stopped` if the work was cancelled."""
        if self._stop.is_set():
            raise Stopped("the operation was cancelled, because another part of the same work failed")
        if self.left <= 0:
            raise DeadlineExceeded(f"the operation did not finish within {self._seconds:g} s", temporary=True)

    def wait(self, seconds: float, *, instead: SociPipelineError) -> None:
        """Sleep; raise ``instead`` if the deadline would pass before the end, `Stopped` if cancelled."""
        if seconds >= self.left:
            raise instead
        if self._stop.wait(seconds):
            self.check()


class FailuresInARow:
    """Counts consecutive failures of an operation, and waits between attempts."""

    def __init__(self, settings: Attempts, deadline: Deadline) -> None:
        self._settings = settings
        self._deadline = deadline
        self._count = 0

    def is_last(self, error: SociPipelineError, retriable: Callable[[SociPipelineError], bool]) -> bool:
        """Count a failure; return whether no attempts are left or a retry is useless."""
        self._count += 1
        return self._count >= self._settings.attempts or not retriable(error)

    def forget(self) -> None:
        """Reset the count, after progress."""
        self._count = 0

    def wait(self, error: SociPipelineError) -> None:
        """Wait before the next attempt; raise the error if the deadline would pass before, `Stopped` if cancelled."""
        self._deadline.wait(_pause(error, self._settings, self._count - 1), instead=error)


def is_temporary(error: SociPipelineError) -> bool:
    """Whether the same call may succeed later."""
    return error.temporary


def with_retries(
    work: Callable[[], _Result],
    settings: Attempts,
    deadline: Deadline,
    *,
    retriable: Callable[[SociPipelineError], bool] = is_temporary,
) -> _Result:
    """Retry until the work succeeds, fails permanently, or the attempts or the deadline are used up.

    ``retriable`` decides which errors are retried; by default those with ``temporary`` set.
    """
    failures = FailuresInARow(settings, deadline)
    while True:
        deadline.check()
        try:
            return work()
        except SociPipelineError as error:
            if failures.is_last(error, retriable):
                raise
            failures.wait(error)


def retry_while_unavailable(
    work: Callable[[], _Result], kind: type[SociPipelineError], *, deadline_s: float
) -> _Result:
    """Retry while the work fails with an error of this kind, for at most ``deadline_s`` seconds.

    Waits as long as the server asks, at least a second; raises the error if that would be too long.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            return work()
        except kind as error:
            asked = error.retry_after or 0.0
            if time.monotonic() >= deadline or time.monotonic() + asked > deadline:
                raise
            time.sleep(max(_PAUSE_S, asked))


def _pause(error: SociPipelineError, settings: Attempts, attempt: int) -> float:
    """Return the seconds to wait before a retry: the server's Retry-After, or the back-off of that attempt."""
    pause = settings.backoff(attempt)
    if error.retry_after is not None:
        # Add jitter, or all clients with the same Retry-After would return at the same time.
        pause = error.retry_after + min(pause, 1.0)
    logger().log(_TOLD.level(error), "trying again in %.1f s: %s", pause, error.reason)
    return pause


class _ServerDelay:
    """Recently logged causes: many blobs may fail for one cause, which is logged only once for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[tuple[str, str], float] = {}

    def level(self, error: SociPipelineError) -> int:
        """Return DEBUG for a cause logged in the last seconds, else INFO."""
        cause = type(error).__name__, urlsplit(error.url).netloc
        now = time.monotonic()
        with self._lock:
            # Dropping older entries keeps the dictionary small.
            self._last = {each: at for each, at in self._last.items() if now - at < _QUIET_SECONDS}
            return logging.DEBUG if self._last.setdefault(cause, now) < now else logging.INFO


_TOLD = _ServerDelay()
