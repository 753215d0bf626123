"""Rate limits with token buckets: a number of events per minute, with a burst of the same size."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

_MAX_KEYS = 4096


class RateLimit:
    """A token bucket per key; the least recently used are dropped above a limit. ``clock`` is in monotonic seconds."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_minute / 60
        self._burst = float(per_minute)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: Hashable) -> float:
        """Take a token and return 0, or return the seconds until one is available without taking it."""
        with self._lock:
            now = self._clock()
            tokens, since = self._buckets.pop(key, (self._burst, now))
            tokens = min(self._burst, tokens + (now - since) * self._rate)
            enough = tokens >= 1
            self._buckets[key] = (tokens - 1 if enough else tokens, now)
            while len(self._buckets) > _MAX_KEYS:
                self._buckets.popitem(last=False)
            return 0.0 if enough else (1 - tokens) / self._rate
