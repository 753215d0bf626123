"""Trusted proxies, and the client address that they forward."""

import ipaddress
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

_FORWARDED_FOR = b"x-forwarded-for"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """Addresses and networks whose X-Forwarded-For is trusted; ``*`` means all."""

    def __init__(self, names: Sequence[str]) -> None:
        self._all = "*" in names
        self._networks = [network for each in names if (network := _network(each)) is not None]

    def __contains__(self, peer: str) -> bool:
        """Whether an address (or a network that counts as one client) belongs to a trusted proxy."""
        network = _network(peer)
        if self._all or network is None:
            return self._all
        return any(network.version == each.version and network.overlaps(each) for each in self._networks)

    def sender(self, peer: str, forwarded_for: str) -> str:
        """Return the client's address: the last entry of X-Forwarded-For that is not a trusted proxy."""
        if peer not in self:
            return peer
        hosts = [_without_port(each.strip()) for each in forwarded_for.split(",")]
        # With ``*`` every entry counts as a proxy, so take the first one.
        if self._all:
            return hosts[0] or peer
        # Search from the end: the client can prepend any number of entries.
        return next((each for each in reversed(hosts) if "/" in each or each not in self), hosts[0]) or peer


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _without_port(text: str) -> str:
    """Return the host of ``host``, ``host:port`` or ``[host]:port``; some proxies include the client's port."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    host, _, port = text.partition(":")
    return host if port.isascii() and port.isdigit() else text


class ForwardedSender:
    """ASGI middleware that replaces the client of a request by the address that a trusted proxy forwards."""

    def __init__(self, app: ASGIApp, proxies: TrustedProxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if client:
            values = [value.decode("latin-1") for name, value in scope["headers"] if name == _FORWARDED_FOR]
            scope = {**scope, "client": (self._proxies.sender(client[0], ",".join(values)), 0)}
        await self._app(scope, receive, send)
