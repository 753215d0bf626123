"""How many connections a server takes, and from whom.

Without a limit, one peer that opens connections and sends nothing takes all the open files of the process. Where a peer
has as many connections as it may have, its longest idle one makes room for the next one. Connections with a request
under way keep out only others of the same peer.
"""

import ipaddress
import resource
from collections.abc import Callable

_KEPT_FILES = 64
_MOST = 4096
_IPV6_PREFIX = 64  # what a single host usually has to itself
_UNKNOWN = "unknown"


class Place:
    """The place of one open connection in a table."""

    __slots__ = ("_table", "drop", "peer")

    def __init__(self, table: "Connections", peer: str, drop: Callable[[], None]) -> None:
        self._table = table
        self.peer = peer
        self.drop = drop

    def busy(self) -> None:
        """A request is under way."""
        self._table.mark(self, idle=False)

    def idle(self) -> None:
        """No request is under way any more."""
        self._table.mark(self, idle=True)

    def leave(self) -> None:
        """The connection ended; it may have lost its place before."""
        self._table.remove(self)


class Connections:
    """The open connections of one server. Not for several threads: the server's event loop calls it.

    ``unbounded`` says whether a peer may have more than ``per_peer``. Unless ``exact``, no peer may have more than half
    of all places.
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
        """Take in a connection, which is idle at first; None where there is no room.

        ``drop`` ends the connection when another one needs its place.
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
        """Record whether a request is under way on a connection."""
        if not idle:
            self._idle.pop(place, None)
        elif place in self._open:
            self._idle[place] = None

    def remove(self, place: Place) -> None:
        """Count a connection no longer."""
        if place not in self._open:
            return
        self._open.remove(place)
        self._idle.pop(place, None)
        self._counts[place.peer] -= 1
        if not self._counts[place.peer]:
            del self._counts[place.peer]

    def handshakes(self) -> "Connections":
        """A table with the same bounds, for connections whose TLS handshake has not ended."""
        return Connections(self._per_peer, most=self._most, unbounded=self._unbounded, exact=True)

    def _drop_idle(self, peer: str | None) -> bool:
        """End the connection that has been idle longest, of one peer or of all; whether there was one."""
        longest = next((each for each in self._idle if peer in (None, each.peer)), None)
        if longest is None:
            return False
        self.remove(longest)
        longest.drop()
        return True


def peer_of(host: str) -> str:
    """The name under which connections and requests are counted: an IPv4 address, or the /64 of an IPv6 one.

    Whatever is not an address is one peer: X-Forwarded-For may contain any string.
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
    """What the limit on open files allows: by default, each connection may have a file open too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return max(16, min(_MOST, (soft - _KEPT_FILES) // files_per_connection))
