"""Limits on the number of connections, in total and per peer.

Without a limit, one peer that opens connections and sends nothing uses up the open files of the process. If a peer has
reached its limit, its longest idle connection is closed for the new one. Connections with a request in progress are
not closed for others; they block only new connections of the same peer.
"""

import ipaddress
import resource
from collections.abc import Callable

_KEPT_FILES = 64
_MOST = 4096
_IPV6_PREFIX = 64  # the usual allocation of a single host
_UNKNOWN = "unknown"


class Place:
    """The slot of one open connection in a `Connections` table."""

    __slots__ = ("_table", "drop", "peer")

    def __init__(self, table: "Connections", peer: str, drop: Callable[[], None]) -> None:
        self._table = table
        self.peer = peer
        self.drop = drop

    def busy(self) -> None:
        """Mark the connection as busy: a request is in progress."""
        self._table.mark(self, idle=False)

    def idle(self) -> None:
        """Mark the connection as idle: no request is in progress."""
        self._table.mark(self, idle=True)

    def leave(self) -> None:
        """Free the slot of an ended connection; it may have been freed before."""
        self._table.remove(self)


class Connections:
    """The open connections of one server. Not thread-safe: only the server's event loop calls it.

    ``unbounded`` returns whether a peer may exceed ``per_peer``. Unless ``exact``, ``per_peer`` is limited to half of
    all slots.
    """

    def __init__(
        self,
        per_peer: int,
        *,
        most: int | None = None,
        unbounded: Callable[[str], bool] = lambda _peer: False,
        exact: bool = False,
    ) -> None:
        self._most = most or most_connections()
        self._unbounded = unbounded
        self._per_peer = per_peer if exact else max(1, min(per_peer, self._most // 2))
        self._open: set[Place] = set()
        self._counts: dict[str, int] = {}
        # In the order in which they became idle.
        self._idle: dict[Place, None] = {}

    def admit(self, peer: str, drop: Callable[[], None]) -> Place | None:
        """Add a connection, idle at first; return None if there is no free slot.

        ``drop`` closes the connection when its slot is needed for another one.
        """
        if self._counts.get(peer, 0) >= self._per_peer and not self._unbounded(peer) and not self._drop_idle(peer):
            return None
        if len(self._open) >= self._most and not self._drop_idle(None):
            return None
        place = Place(self, peer, drop)
        self._open.add(place)
        self._idle[place] = None
        self._counts[peer] = self._counts.get(peer, 0) + 1
        return place

    def mark(self, place: Place, *, idle: bool) -> None:
        """Record whether a request is in progress on a connection."""
        if not idle:
            self._idle.pop(place, None)
        elif place in self._open:
            self._idle[place] = None

    def remove(self, place: Place) -> None:
        """Remove a connection from the table."""
        if place not in self._open:
            return
        self._open.remove(place)
        self._idle.pop(place, None)
        self._counts[place.peer] -= 1
        if not self._counts[place.peer]:
            del self._counts[place.peer]

    def handshakes(self) -> "Connections":
        """Return an empty table with the same limits, for connections whose TLS handshake is not complete."""
        return Connections(self._per_peer, most=self._most, unbounded=self._unbounded, exact=True)

    def _drop_idle(self, peer: str | None) -> bool:
        """Close the longest idle connection of a peer, or of all peers if None; return whether there was one."""
        longest = next((each for each in self._idle if peer in (None, each.peer)), None)
        if longest is None:
            return False
        self.remove(longest)
        longest.drop()
        return True


def peer_of(host: str) -> str:
    """Return the key under which a client is counted: an IPv4 address, or the /64 network of an IPv6 address.

    All other strings are counted as one peer, since X-Forwarded-For may contain anything.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return _UNKNOWN
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))


def most_connections(*, files_per_connection: int = 2) -> int:
    """Return how many connections the open file limit allows; by default each may have one more file open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return max(16, min(_MOST, (soft - _KEPT_FILES) // files_per_connection))
