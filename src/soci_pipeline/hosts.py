"""Classify a host name or IP address: loopback, link-local and so on. Names are not resolved.

Hosts are untrusted: they come from the source of a run or from a push event. A name whose DNS record is a loopback
address is not recognised: compare it with a list of allowed hosts instead.
"""

import ipaddress
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOOPBACK_NAMES = frozenset({"localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback"})
_LOOPBACK_DOMAINS = (".localhost", ".localdomain", ".localdomain4", ".localdomain6")
# Metadata services of clouds, which serve a machine's credentials: their names, and their addresses outside the
# link-local networks (Alibaba, Azure, Oracle, EC2 over IPv6).
_METADATA_NAMES = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)
_METADATA = tuple(
    map(ipaddress.ip_network, ("100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32", "fd00:ec2::/32"))
)
_THIS_HOST = ipaddress.ip_network("0.0.0.0/8")
_BROADCAST = ipaddress.ip_address("255.255.255.255")
# IPv6 addresses whose last 32 bits are an IPv4 address: NAT64 (RFC 6052, RFC 8215), translated (RFC 2765), and the
# deprecated compatible form (RFC 4291).
_EMBEDDING = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96")))
_ISATAP = (0x00005EFE, 0x02005EFE)


def ip_address_of(host: str) -> Address | None:
    """Parse an IP address as the C library does (127.1, 0x7f000001 and 2130706433 are equal); None for a name."""
    text = host.removeprefix("[").removesuffix("]").rstrip(".")
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(text))
    except (OSError, UnicodeError):
        return None


def is_loopback(host: str) -> bool:
    """Whether a host in any notation is this machine; 0.0.0.0 and :: connect to it as well."""
    name = host.lower().rstrip(".")
    if name in _LOOPBACK_NAMES or name.endswith(_LOOPBACK_DOMAINS):
        return True
    return any(each.is_loopback or each.is_unspecified or each in _THIS_HOST for each in _addresses(host))


def is_forbidden(host: str) -> bool:
    """Whether a host is link-local, multicast, broadcast or a cloud's metadata service: never a valid server."""
    if host.lower().rstrip(".") in _METADATA_NAMES:
        return True
    return any(
        each.is_link_local or each.is_multicast or each == _BROADCAST or any(each in network for network in _METADATA)
        for each in _addresses(host)
    )


def _addresses(host: str) -> tuple[Address, ...]:
    """Return the address of a host and the IPv4 addresses embedded in it; none for a name."""
    address = ip_address_of(host)
    if address is None:
        return ()
    return (address,) if isinstance(address, ipaddress.IPv4Address) else (address, *_embedded(address))


def _embedded(address: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...]:
    """Return the IPv4 addresses embedded in an IPv6 address: mapped, 6to4, Teredo, ISATAP and the networks above."""
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    value = int(address)
    is_whole = address.is_loopback or address.is_unspecified
    if (not is_whole and any(address in network for network in _EMBEDDING)) or value >> 32 & 0xFFFFFFFF in _ISATAP:
        found.append(ipaddress.IPv4Address(value & 0xFFFFFFFF))
    return tuple(each for each in found if each is not None)
