"""Choice of how a blob is uploaded, in one request or in parts, based on what a registry has rejected so far.

Registries and the proxies in front of them limit the size of a request, and some support only one of the two ways. A
rejection is remembered for all blobs of one client, and a rejected part costs at most a quarter of one blob.
"""

import sys
import threading
from dataclasses import dataclass

_MIB = 1 << 20
# GHCR's limit for a part, and nginx's default limit for any request.
_SMALL_PARTS = (4 * _MIB, _MIB)
_LEAST_FIRST_PART = 5 * _MIB
_SHARE = 4
NOT_SUPPORTED = frozenset({404, 405, 501})
"""Statuses of a registry that does not support the request."""
TOO_LARGE = frozenset({413, 416})
"""Statuses of a registry that rejects the size of a request (GHCR: 416 for a part above 4 MiB)."""


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """A way to upload a blob: in parts of ``part_size`` bytes, or in one request (``part_size`` None)."""

    part_size: int | None


class UploadWays:
    """Remembers which uploads a registry has rejected; thread-safe. Sizes are in bytes."""

    def __init__(self, part_size: int) -> None:
        self._part_size = part_size
        self._whole_below = self._part_below = sys.maxsize
        self._lock = threading.Lock()

    def choose(self, size: int) -> RegistryAccess | None:
        """Return the best way for a blob of ``size`` bytes that was not rejected, or None if all were."""
        with self._lock:
            whole = size < self._whole_below
            part = part_size_of(size, self._part_size)
            if size > self._part_size and part < self._part_below:
                return RegistryAccess(part)
            if whole:
                return RegistryAccess(None)
            # Parts as large as a rejected blob would be rejected too.
            most = min(self._part_below, self._whole_below or sys.maxsize)
            small = (each for each in _SMALL_PARTS if each < most)
            return next((RegistryAccess(each) for each in small), None)

    def reject_parts(self, size: int = 0) -> None:
        """Record that parts of ``size`` bytes or more are rejected; 0 means all parts."""
        with self._lock:
            self._part_below = min(self._part_below, size)

    def reject_whole(self, size: int = 0) -> None:
        """Record that blobs of ``size`` bytes or more are rejected in one request; 0 means all blobs."""
        with self._lock:
            self._whole_below = min(self._whole_below, size)


def part_size_of(size: int, most: int) -> int:
    """Return the part size for a blob: a quarter of it, the cost of a rejected part, but at most ``most``."""
    return min(most, max(-(-size // _SHARE), _LEAST_FIRST_PART))
