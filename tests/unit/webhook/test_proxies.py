"""Whom a trusted proxy names as the sender."""

import asyncio
import time
from typing import Any

import pytest

from soci_pipeline.webhook.proxies import ForwardedSender, TrustedProxies

PROXIES = ("192.0.2.1", "10.0.0.0/8", "2001:db8:1::/48")


@pytest.mark.parametrize(
    ("peer", "forwarded", "sender"),
    [
        ("198.51.100.9", "203.0.113.1", "198.51.100.9"),
        ("192.0.2.1", "203.0.113.1", "203.0.113.1"),
        ("192.0.2.1", "spoofed, 203.0.113.1", "203.0.113.1"),
        ("192.0.2.1", "203.0.113.7, 203.0.113.1, 10.1.2.3", "203.0.113.1"),
        ("10.9.9.9", "203.0.113.1:50000", "203.0.113.1"),
        ("10.9.9.9", "203.0.113.1, 10.1.2.3:443", "203.0.113.1"),
        ("2001:db8:1::5", "[2001:db8:2::1]:50000", "2001:db8:2::1"),
        ("2001:db8:1::5", "2001:db8:2::1, 2001:db8:1::6", "2001:db8:2::1"),
        ("192.0.2.1", "203.0.113.1, 10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.1", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", " , ", "192.0.2.1"),
        ("192.0.2.1", "not an address", "not an address"),
    ],
)
def test_the_sender_is_the_last_address_that_is_not_a_proxys(peer: str, forwarded: str, sender: str) -> None:
    assert TrustedProxies(PROXIES).sender(peer, forwarded) == sender


def test_where_every_proxy_is_trusted_the_first_address_is_the_sender() -> None:
    assert TrustedProxies(["*"]).sender("198.51.100.9", "203.0.113.1, 203.0.113.2") == "203.0.113.1"


@pytest.mark.parametrize("peer", ["192.0.2.1", "198.51.100.9"])
def test_several_headers_are_one_list(peer: str) -> None:
    clients: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clients.append(scope["client"][0])

    headers = [(b"x-forwarded-for", b"203.0.113.1"), (b"host", b"x"), (b"x-forwarded-for", b"10.0.0.1")]
    scope = {"type": "http", "client": (peer, 1), "headers": headers}
    asyncio.run(ForwardedSender(app, TrustedProxies(PROXIES))(scope, None, None))  # type: ignore[arg-type]
    assert clients == ["203.0.113.1" if peer in PROXIES else peer]


def test_a_long_list_of_senders_costs_no_more_than_its_end() -> None:
    forwarded = "x," * 32_000 + "203.0.113.1"
    started = time.process_time()
    assert TrustedProxies(["10.0.0.0/8"]).sender("10.0.0.1", forwarded) == "203.0.113.1"
    assert time.process_time() - started < 0.1
