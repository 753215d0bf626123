"""HTTP/1.1 with bounds that uvicorn leaves out: how long a sender may stall, and who may connect how often.

Without the first a sender that opens connections and says nothing, or a header now and then, or does not read what it
is answered, holds all the places there are. Without the second one address does so with many connections.
"""

import asyncio
import ipaddress
from collections.abc import Iterable, Sequence
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from soci_pipeline.registry.server.connections import Connections

_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_IPV6_PREFIX = 64  # what a single host usually has to itself
_UNKNOWN = "unknown"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Places:
    """The open connections, oldest first: so many for one address, and so many in all.

    A connection above either bound takes the place of the oldest idle one (of its own address, if that has too many),
    so connections that wait for nothing keep nobody out. It is refused only where all of those are busy with a request.
    Trusted proxies stand for many senders: only the second bound counts for them.
    """

    def __init__(self, per_address: int, total: int, trusted_proxies: Sequence[str] = ()) -> None:
        self._per_address = per_address
        self._total = total
        self._trusts_all = "*" in trusted_proxies
        self._trusted = [network for each in trusted_proxies if (network := _network(each)) is not None]
        self._by_address: dict[str, dict[BoundedConnection, None]] = {}
        self._all: dict[BoundedConnection, None] = {}

    def take(self, connection: "BoundedConnection") -> bool:
        """Whether the connection has a place; idle ones may have been closed for it."""
        own = self._by_address.get(connection.address, {})
        if len(own) >= self._per_address and not self.is_trusted(connection.address) and not self._evict(own):
            return False
        if len(self._all) >= self._total and not self._evict(self._all):
            return False
        self._by_address.setdefault(connection.address, {})[connection] = None
        self._all[connection] = None
        return True

    def leave(self, connection: "BoundedConnection") -> None:
        """Give the place back; nothing happens where there is none."""
        self._all.pop(connection, None)
        own = self._by_address.get(connection.address, {})
        own.pop(connection, None)
        if not own:
            self._by_address.pop(connection.address, None)

    def _evict(self, connections: Iterable["BoundedConnection"]) -> bool:
        oldest = next((each for each in connections if each.is_idle), None)
        if oldest is None:
            return False
        self.leave(oldest)
        oldest.transport.abort()
        return True

    def handshakes(self) -> Connections:
        """A table with the same bounds for connections whose TLS handshake has not ended."""
        return Connections(self._per_address, most=self._total, unbounded=self.is_trusted)

    def is_trusted(self, address: str) -> bool:
        """Whether an address is a trusted proxy's."""
        network = _network(address)
        if self._trusts_all or network is None:
            return self._trusts_all
        return any(network.version == each.version and network.overlaps(each) for each in self._trusted)


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def sender_of(host: str) -> str:
    """The address that connections and requests are counted for: an IPv4 address, or the /64 of an IPv6 one.

    Whatever is not an address is one sender: X-Forwarded-For may hold any text.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return _UNKNOWN
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network(f"{address}/{_IPV6_PREFIX}", strict=False))


class BoundedConnection(H11Protocol):
    """uvicorn's protocol; a connection whose next request has not a whole head within ``head_seconds`` is closed.

    So is one whose sender does not read: it has as long for what asyncio buffers of the answers, 64 KiB.
    """

    head_seconds: ClassVar[float] = 10.0
    places: ClassVar[Places]
    handshakes: ClassVar[Connections | None] = None
    address: str = ""
    _deadline: asyncio.TimerHandle | None = None
    _read_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, and begin to wait."""
        super().connection_made(transport)
        self.address = sender_of(self.client[0]) if self.client else _UNKNOWN
        if self.handshakes is not None:
            self.handshakes.forget(transport.get_extra_info("socket").fileno())
        if not self.places.take(self):
            transport.write(_BUSY)
            transport.close()
            return
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take what came, and look whether it was a head."""
        super().data_received(data)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back, and stop waiting."""
        self.places.leave(self)
        self._stop_waiting()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give the sender a while to read."""
        super().pause_writing()
        self._stop_waiting_for_reader()
        self._read_deadline = self.loop.call_later(self.head_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The sender has read."""
        super().resume_writing()
        self._stop_waiting_for_reader()

    def _wait_for_head(self) -> None:
        if not self.is_idle:
            self._stop_waiting()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_waiting_for_reader(self) -> None:
        if self._read_deadline is not None:
            self._read_deadline.cancel()
            self._read_deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.is_idle:
            self.transport.close()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way on this connection."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete


def bounded_connections(
    *, head_seconds: float, places: Places, handshakes: Connections | None = None
) -> type[BoundedConnection]:
    """The protocol with bounds of its own; ``handshakes`` counts the connections that do not have it yet."""
    bounds = {"head_seconds": head_seconds, "places": places, "handshakes": handshakes}
    return type("BoundedConnection", (BoundedConnection,), bounds)
