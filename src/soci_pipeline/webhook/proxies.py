"""Trusted proxies: who they are, and the sender that one of them names."""

import ipaddress
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

_FORWARDED_FOR = b"x-forwarded-for"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """Addresses and networks whose X-Forwarded-For is believed; ``*`` stands for all."""

    def __init__(self, names: Sequence[str]) -> None:
        self._all = "*" in names
        self._networks = [network for each in names if (network := _network(each)) is not None]

    def __contains__(self, peer: str) -> bool:
        """Whether an address (or a network of addresses that are counted together) is a trusted proxy's."""
        network = _network(peer)
        if self._all or network is None:
            return self._all
        return any(network.version == each.version and network.overlaps(each) for each in self._networks)

    def sender(self, peer: str, forwarded_for: str) -> str:
        """The address behind the proxies: the last one in the list that is not a proxy's itself."""
        if peer not in self:
            return peer
        hosts = [_without_port(each.strip()) for each in forwarded_for.split(",")]
        # With ``*`` there is no telling where the list of the proxies begins.
        if self._all:
            return hosts[0] or peer
        # From the end, since the sender may put as many before it as it likes.
        return next((each for each in reversed(hosts) if "/" in each or each not in self), hosts[0]) or peer


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _without_port(text: str) -> str:
    """The host of ``host``, ``host:port`` or ``[host]:port``; some proxies name the sender's port too."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    host, _, port = text.partition(":")
    return host if port.isascii() and port.isdigit() else text


class ForwardedSender:
    """Replaces the client of a request by the sender that a trusted proxy names."""

    def __init__(self, app: ASGIApp, proxies: TrustedProxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if client:
            values = [value.decode("latin-1") for name, value in scope["headers"] if name == _FORWARDED_FOR]
            scope = {**scope, "client": (self._proxies.sender(client[0], ",".join(values)), 0)}
        await self._app(scope, receive, send)
