"""How patient and how careful the registry client is. All times are in seconds, all sizes in bytes."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from soci_pipeline.errors import DeadlineExceeded, SociPipelineError
from soci_pipeline.process import logger
from soci_pipeline.registry.errors import RegistryError

_QUIET_SECONDS = 5.0
_Result = TypeVar("_Result")
# Of its own: a generator that others seed would let many clients wait equally long.
_CHANCE = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The defaults suit a registry over the internet; tests shorten the waits."""

    attempts: int = 6
    """How often one request, or one part of an upload, is tried."""
    deadline: float = 900.0
    """For one whole operation with all its repeats; each byte of a blob adds ``1 / slowest_rate``."""
    slowest_rate: float = 1 << 20
    backoff_base: float = 0.5
    backoff_cap: float = 30.0
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    part_size: int = 256 << 20
    """A blob larger than this goes up in parts of at most this size, each of which can be resumed. After each the
    registry writes out what it has, so they are as large as what is worth sending again. Registries may want
    less; `publish.registries.connect` knows what ECR takes."""
    read_size: int = 1 << 20
    max_connections: int = 32
    settle_time: float = 20.0
    """How long "not found" is doubted for what this client has just pushed (ECR is consistent only eventually)."""

    def backoff(self, attempt: int) -> float:
        """Full jitter: anything up to the exponential bound, so that many clients do not knock at once."""
        return _CHANCE.uniform(0, min(self.backoff_cap, self.backoff_base * 2**attempt))


class Stopped(SociPipelineError):
    """Work was given up on purpose; the error of what failed tells why."""


class Deadline:
    """The end of one operation, shared by everything it does."""

    def __init__(self, seconds: float, *, stop: threading.Event | None = None) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._stop = stop or threading.Event()

    @property
    def left(self) -> float:
        """Seconds that remain; 0 when it is over."""
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raises `DeadlineExceeded` when it is over, `Stopped` when it was given up."""
        if self._stop.is_set():
            raise Stopped("the operation was given up, since another part of the same work failed")
        if self.left <= 0:
            raise DeadlineExceeded(f"the registry operation did not end within {self._seconds:g} s", temporary=True)

    def wait(self, seconds: float, *, instead: SociPipelineError) -> None:
        """Sleep; raises ``instead`` where the deadline would pass before the end of it, `Stopped` when given up."""
        if seconds >= self.left:
            raise instead
        if self._stop.wait(seconds):
            self.check()


def with_retries(
    work: Callable[[], _Result],
    settings: ClientSettings,
    deadline: Deadline,
    *,
    retriable: Callable[[SociPipelineError], bool] = lambda error: error.temporary,
) -> _Result:
    """Do some work until it succeeds, fails for good, or the attempts or the deadline are used up.

    ``retriable`` says which errors are worth another try; by default, those that call themselves temporary.
    """
    for attempt in range(settings.attempts):
        deadline.check()
        try:
            return work()
        except SociPipelineError as error:
            if attempt + 1 >= settings.attempts or not retriable(error):
                raise
            deadline.wait(retry_pause(error, settings, attempt), instead=error)
    raise AssertionError("the loop ends by a return or a raise")


def retry_pause(error: SociPipelineError, settings: ClientSettings, attempt: int) -> float:
    """Seconds to wait before another try: what the registry asked for, or the back-off of that attempt."""
    pause = settings.backoff(attempt)
    if isinstance(error, RegistryError) and error.retry_after is not None:
        # A little jitter on top, or all who were told the same come back together.
        pause = error.retry_after + min(pause, 1.0)
    logger().log(_TOLD.level(error), "trying again in %.1f s: %s", pause, error.reason)
    return pause


class _Told:
    """What was said lately: many blobs at once fail for one cause, and one line of it is enough for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[tuple[str, str], float] = {}

    def level(self, error: SociPipelineError) -> int:
        """INFO for a cause that was not told in the last seconds, DEBUG for the others."""
        cause = type(error).__name__, urlsplit(error.url).netloc if isinstance(error, RegistryError) else ""
        now = time.monotonic()
        with self._lock:
            # What is older does not count, so no more is kept than fails within these seconds.
            self._last = {each: at for each, at in self._last.items() if now - at < _QUIET_SECONDS}
            return logging.DEBUG if self._last.setdefault(cause, now) < now else logging.INFO


_TOLD = _Told()
