"""Shared by all parts of the client: operations with one deadline each, retried while errors are temporary."""

import threading
import time
from collections.abc import Callable

import httpx

from soci_pipeline.errors import SociPipelineError
from soci_pipeline.registry.transport import Answer, Call, Transport
from soci_pipeline.retry import Deadline, with_retries

OK = frozenset({200})
Doubt = Callable[[SociPipelineError], bool]
"""Predicate: whether to retry an error that is not marked as temporary."""


def never(_error: SociPipelineError) -> bool:
    """Return False: retry only temporary errors."""
    return False


class RecentPushes:
    """What one client has recently pushed; an eventually consistent registry may not find it yet."""

    def __init__(self, settle_time: float) -> None:
        self._settle_time = settle_time
        self._until: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def add(self, repository: str, *names: str) -> None:
        """Record digests and tags that were pushed to a repository."""
        now = time.monotonic()
        with self._lock:
            self._until = {key: until for key, until in self._until.items() if until > now}
            for name in (*names, ""):
                self._until[repository, name] = now + self._settle_time

    def forget(self, repository: str) -> None:
        """Drop all recorded pushes to a repository."""
        with self._lock:
            self._until = {key: until for key, until in self._until.items() if key[0] != repository}

    def has(self, repository: str, name: str = "") -> bool:
        """Whether ``name``, or anything if it is empty, was recently pushed to a repository."""
        with self._lock:
            return self._until.get((repository, name), 0.0) > time.monotonic()


class Operations:
    """Runs the requests of one client; thread-safe."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.settings = transport.settings
        self.recent = RecentPushes(self.settings.settle_time)

    def url(self, path: str, **query: str) -> httpx.URL:
        """Return the URL of a path below ``/v2/``."""
        return self.transport.url(path, **query)

    def deadline(self, size: int = 0, stop: threading.Event | None = None) -> Deadline:
        """Return the deadline of an operation that transfers ``size`` bytes; setting ``stop`` ends it early."""
        return Deadline(self.settings.deadline + size / self.settings.slowest_rate, stop=stop)

    def call(
        self, call: Call, *, limit: int = 64 << 10, doubt: Doubt = never, deadline: Deadline | None = None
    ) -> Answer:
        """Send a request with retries and read its response, at most ``limit`` bytes."""
        end = deadline or self.deadline()
        return with_retries(
            lambda: self.transport.call(call, end, limit=limit),
            self.settings,
            end,
            retriable=lambda error: doubt(error) or error.temporary,
        )

    def head(self, call: Call, *, doubt: Doubt = never) -> Answer:
        """Send a HEAD request with retries."""
        end = self.deadline()
        return with_retries(
            lambda: self.transport.head(call, end),
            self.settings,
            end,
            retriable=lambda error: doubt(error) or error.temporary,
        )
