"""How many connections the embedded registry takes, and from whom; the receiver of events counts TLS handshakes so.

Without a limit, one client that opens connections and sends nothing takes all the open files of the process. Where an
address has as many connections as it may have, its longest idle one makes room for the next one. Connections with a
request under way keep out only others of the same address.
"""

import contextlib
import ipaddress
import resource
import socket
from collections.abc import Callable
from typing import Any

_KEPT_FILES = 64
_FILES_PER_CONNECTION = 2
_MOST = 4096
_REJECTED_AT_ONCE = 64


class CountedSocket(socket.socket):
    """An accepted connection, which leaves the table when it is closed."""

    table: "Connections | None" = None
    peer = ""
    handle = -1

    def close(self) -> None:
        """Close, and make room for another one."""
        super().close()
        if self.table is not None:
            self.table.remove(self)


class Connections:
    """The open connections of one server. Not for several threads: the server's event loop calls it.

    ``unbounded`` answers whether an address may have more than ``per_address``.
    """

    def __init__(
        self, per_address: int, *, most: int | None = None, unbounded: Callable[[str], bool] = lambda _peer: False
    ) -> None:
        self._most = most or _most_connections()
        self._unbounded = unbounded
        # No address may have so many that others find no room.
        self._per_address = max(1, min(per_address, self._most // 2))
        self._open: dict[int, CountedSocket] = {}
        self._counts: dict[str, int] = {}
        # In the order in which they became idle.
        self._idle: dict[int, CountedSocket] = {}

    def add(self, connection: CountedSocket, peer: str) -> bool:
        """Take in a connection; False where there is no room for it."""
        if self._counts.get(peer, 0) >= self._per_address and not self._unbounded(peer) and not self._drop_idle(peer):
            return False
        if len(self._open) >= self._most and not self._drop_idle(None):
            return False
        connection.table, connection.peer, connection.handle = self, peer, connection.fileno()
        self._open[connection.handle] = self._idle[connection.handle] = connection
        self._counts[peer] = self._counts.get(peer, 0) + 1
        return True

    def mark(self, handle: int, *, idle: bool) -> None:
        """Record whether a request is under way on the connection with this file descriptor."""
        if not idle:
            self._idle.pop(handle, None)
        elif handle in self._open and handle not in self._idle:
            self._idle[handle] = self._open[handle]

    def forget(self, handle: int) -> None:
        """Count the connection with this file descriptor no longer."""
        if handle in self._open:
            self.remove(self._open[handle])

    def remove(self, connection: CountedSocket) -> None:
        """The connection ends; it may have been removed before."""
        if self._open.get(connection.handle) is not connection:
            return
        del self._open[connection.handle]
        self._idle.pop(connection.handle, None)
        self._counts[connection.peer] -= 1
        if not self._counts[connection.peer]:
            del self._counts[connection.peer]

    def _drop_idle(self, peer: str | None) -> bool:
        """End the connection that has been idle longest, of one address or of all; whether there was one."""
        longest = next((each for each in self._idle.values() if peer in (None, each.peer)), None)
        if longest is None:
            return False
        self.remove(longest)
        # The event loop sees its end and closes it.
        with contextlib.suppress(OSError):
            longest.shutdown(socket.SHUT_RDWR)
        return True


class CountingListener(socket.socket):
    """A listening socket that accepts only connections for which the table has room, and closes the others."""

    table: Connections

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; raises `BlockingIOError` where none is waiting."""
        for _ in range(_REJECTED_AT_ONCE):
            accepted, address = super().accept()
            connection = CountedSocket(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
            if self.table.add(connection, _network_of(address)):
                return connection, address
            connection.close()
        raise BlockingIOError


def counting(listener: socket.socket, table: Connections) -> CountingListener:
    """Count the connections of a listening socket, which is taken over."""
    found = CountingListener(listener.family, listener.type, listener.proto, fileno=listener.detach())
    found.table = table
    return found


def _network_of(address: Any) -> str:
    """The address of a peer; of an IPv6 one its network, since a machine has all addresses of that."""
    text = str(address[0]).partition("%")[0]
    found = ipaddress.ip_address(text)
    return text if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))


def _most_connections() -> int:
    """What the limit on open files allows: each connection may have a blob open too."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return max(16, min(_MOST, (soft - _KEPT_FILES) // _FILES_PER_CONNECTION))
