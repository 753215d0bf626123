"""How a blob goes up: in one request or in parts, by what a registry has rejected so far.

Registries and the proxies before them limit the size of one request, and some support only one of the two ways. A
rejection is remembered for all blobs of one client, so that each costs at most a quarter of one blob.
"""

import sys
import threading
from dataclasses import dataclass

_MIB = 1 << 20
# The limits of GHCR for a part, and of nginx for any request unless it is configured.
_SMALL_PARTS = (4 * _MIB, _MIB)
_LEAST_FIRST_PART = 5 * _MIB
_SHARE = 4
NOT_SUPPORTED = frozenset({404, 405, 501})
"""Statuses of a registry that does not know the request at all."""
TOO_LARGE = frozenset({413, 416})
"""Statuses of a registry that rejects the size of a request (GHCR: 416 for a part above 4 MiB)."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of sending a blob: in parts of ``part_size`` bytes, or at once (``part_size`` None)."""

    part_size: int | None


class UploadWays:
    """What a registry takes; threads share it. Sizes are in bytes."""

    def __init__(self, part_size: int) -> None:
        self._part_size = part_size
        self._whole_below = self._part_below = sys.maxsize
        self._lock = threading.Lock()

    def choose(self, size: int) -> Way | None:
        """The best way for a blob of ``size`` bytes that was not rejected; None where all were."""
        with self._lock:
            whole = size < self._whole_below
            part = part_size_of(size, self._part_size)
            if size > self._part_size and part < self._part_below:
                return Way(part)
            if whole:
                return Way(None)
            # Parts as large as a blob that was rejected would be rejected too.
            most = min(self._part_below, self._whole_below or sys.maxsize)
            small = (each for each in _SMALL_PARTS if each < most)
            return next((Way(each) for each in small), None)

    def reject_parts(self, size: int = 0) -> None:
        """Remember that parts of ``size`` bytes were rejected; 0 means all parts."""
        with self._lock:
            self._part_below = min(self._part_below, size)

    def reject_whole(self, size: int = 0) -> None:
        """Remember that a blob of ``size`` bytes was rejected in one request; 0 means all blobs."""
        with self._lock:
            self._whole_below = min(self._whole_below, size)


def part_size_of(size: int, most: int) -> int:
    """The size of the parts of a blob: a quarter of it, which is what a rejected part costs, at most ``most``."""
    return min(most, max(-(-size // _SHARE), _LEAST_FIRST_PART))
