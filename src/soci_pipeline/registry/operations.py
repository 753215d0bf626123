"""What all parts of the client share: one operation under one deadline, tried again while a fault is temporary."""

import threading
import time
from collections.abc import Callable

import httpx

from soci_pipeline.errors import SociPipelineError
from soci_pipeline.registry.transport import Answer, Call, Transport
from soci_pipeline.retry import Deadline, with_retries

OK = frozenset({200})
Doubt = Callable[[SociPipelineError], bool]
"""Whether an error that calls itself lasting is worth another try."""


def no_doubt(_error: SociPipelineError) -> bool:
    """Take every error at its word."""
    return False


class RecentPushes:
    """What one client has just pushed: a registry that is consistent only eventually may not find it yet."""

    def __init__(self, settle_time: float) -> None:
        self._settle_time = settle_time
        self._until: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def add(self, repository: str, *names: str) -> None:
        """Remember digests and tags that were pushed to a repository."""
        now = time.monotonic()
        with self._lock:
            self._until = {key: until for key, until in self._until.items() if until > now}
            for name in (*names, ""):
                self._until[repository, name] = now + self._settle_time

    def forget(self, repository: str) -> None:
        """Doubt nothing of a repository any more."""
        with self._lock:
            self._until = {key: until for key, until in self._until.items() if key[0] != repository}

    def has(self, repository: str, name: str = "") -> bool:
        """Whether that name, or anything at all, was pushed to a repository lately."""
        with self._lock:
            return self._until.get((repository, name), 0.0) > time.monotonic()


class Operations:
    """Runs the requests of one client; threads share it."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.settings = transport.settings
        self.recent = RecentPushes(self.settings.settle_time)

    def url(self, path: str, **query: str) -> httpx.URL:
        """The URL of a path below ``/v2/``."""
        return self.transport.url(path, **query)

    def deadline(self, size: int = 0, stop: threading.Event | None = None) -> Deadline:
        """The deadline of an operation that moves ``size`` bytes; setting ``stop`` ends it early."""
        return Deadline(self.settings.deadline + size / self.settings.slowest_rate, stop=stop)

    def call(
        self, call: Call, *, limit: int = 64 << 10, doubt: Doubt = no_doubt, deadline: Deadline | None = None
    ) -> Answer:
        """Send a request and read at most ``limit`` bytes of its answer."""
        end = deadline or self.deadline()
        return with_retries(
            lambda: self.transport.call(call, end, limit=limit),
            self.settings,
            end,
            retriable=lambda error: doubt(error) or error.temporary,
        )

    def head(self, call: Call, *, doubt: Doubt = no_doubt) -> Answer:
        """Send a HEAD request."""
        end = self.deadline()
        return with_retries(
            lambda: self.transport.head(call, end),
            self.settings,
            end,
            retriable=lambda error: doubt(error) or error.temporary,
        )
