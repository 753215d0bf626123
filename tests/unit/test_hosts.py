"""What kind of host a name or an address is."""

import pytest

from soci_pipeline.hosts import is_forbidden, is_loopback


@pytest.mark.parametrize(
    "host", ["localhost", "a.LOCALHOST.", "127.1", "0x7f000001", "2130706433", "0.0.0.0", "[::1]", "::ffff:127.0.0.1"]
)
def test_this_machine_is_loopback_in_any_notation(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["git.example", "localhost.example", "notlocalhost", "10.0.0.1", "[2001:db8::1]"])
def test_another_host_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "2852039166", "metadata.google.internal", "100.100.100.200", "fe80::1", "224.0.0.1"]
)
def test_a_link_local_multicast_or_metadata_host_is_forbidden(host: str) -> None:
    assert is_forbidden(host)
    assert not is_forbidden("git.example")
