"""Validation of clone URLs and hosts that an event names, before a worker connects to them with anything of its own."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from soci_pipeline.aws.codecommit import CodeCommitSource
from soci_pipeline.errors import InvalidInput
from soci_pipeline.publish.git_address import check_url

_PORTS = {"https": 443, "http": 80, "ssh": 22, "git": 9418}
# Letters and digits of ASCII and what paths need: no quotes, `$(...)`, `%`, `?`, `#` or spaces.
_PLAIN = re.compile(r"[A-Za-z0-9._~:/@+=,\[\]-]+\Z")
_SCP = re.compile(r"(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*@)?(?P<host>[^@:/]+):(?P<path>.+)\Z")
_LABELS = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?\Z")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\Z", re.I)
_LOOPBACK_NAME = re.compile(r"(.*\.)?(localhost|localhost6?\.localdomain6?|localhost6|ip6-localhost|ip6-loopback)\Z")
# The names and the IPv6 addresses under which clouds hand out a machine's credentials.
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"})
_METADATA_NETWORKS = (ipaddress.ip_network("fd00:ec2::/32"), ipaddress.ip_network("100.100.100.200/32"))
_THIS_HOST = ipaddress.ip_network("0.0.0.0/8")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class CloneUrl:
    """Where a clone URL leads: ``scheme``, ``host`` (lower case) and ``port``, and the repository's path there."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Validate a URL; raises ValueError for a local path, an unsupported scheme or a forbidden host."""
        if not _PLAIN.match(url):
            raise ValueError("the clone URL has a character other than letters, digits and . _ ~ : / @ + = , - in it")
        try:
            check_url(url)
            codecommit = CodeCommitSource.parse(url)
        except InvalidInput as error:
            raise ValueError(error.reason) from error
        if codecommit is not None and codecommit.profile is not None:
            raise ValueError("the clone URL names a profile of the worker's AWS configuration")
        found = _scp(url) if codecommit is None and "://" not in url else _split(codecommit.url if codecommit else url)
        scheme, host, port, path = found
        _check_host(host)
        if ".." in path.split("/"):
            raise ValueError("the clone URL has .. in its path")
        return cls(scheme, host, port, path)

    @property
    def origin(self) -> tuple[str, str, int]:
        """What credentials are bound to: scheme, host and port."""
        return self.scheme, self.host, self.port

    @property
    def repository(self) -> str:
        """The path without slashes around it and without ``.git``."""
        return self.path.strip("/").removesuffix(".git")


@dataclass(frozen=True, slots=True)
class CloneHost:
    """Where a rule's repositories are: scheme, host and port, and a path above them where a forge has one."""

    url: CloneUrl

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``https://git.example.com``, with a port or a path where needed; raises ValueError."""
        if "://" not in text or text.count("/") < 2:
            raise ValueError(f"{text[:100]!r} is not a host with its scheme, as in https://git.example.com")
        # A repository makes a clone URL of it, which has the checks that are needed here.
        url = CloneUrl.parse(f"{text.rstrip('/')}/repository")
        return cls(CloneUrl(url.scheme, url.host, url.port, url.path.removesuffix("/repository")))

    def holds(self, url: CloneUrl, repository: str) -> bool:
        """Whether the URL is that of the repository on this host."""
        return url.origin == self.url.origin and url.repository == f"{self.url.path}/{repository}".strip("/")


def registry_host(repository: str) -> str:
    """The host of ``host[:port]/name``; raises ValueError for one that no event may name."""
    host = repository.partition("/")[0].partition(":")[0].lower()
    _check_host(host)
    return host


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: a loopback or unspecified address, or a name for one."""
    address = _address(host)
    if address is None:
        return _LOOPBACK_NAME.match(host.lower().rstrip(".")) is not None
    return any(each.is_loopback or each in _THIS_HOST or each.is_unspecified for each in _with_embedded(address))


def _scp(url: str) -> tuple[str, str, int, str]:
    """The parts of ``user@host:path``; a bare word before the colon is a scheme (``javascript:``), not a host."""
    found = _SCP.match(url)
    if found is None or url.startswith("/"):
        raise ValueError("the address of the repository is a local path")
    if found["user"] is None and "." not in found["host"]:
        raise ValueError(f"{found['host'][:30]!r} is not a supported scheme; allowed are {', '.join(_PORTS)}")
    return "ssh", found["host"].lower(), _PORTS["ssh"], found["path"]


def _split(url: str) -> tuple[str, str, int, str]:
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        # With file:// a worker would read its own disk for the sender.
        raise ValueError(f"{parts.scheme[:30]!r} is not a supported scheme; allowed are {', '.join(_PORTS)}")
    if parts.port == 0 or parts.netloc.count("@") > 1:
        raise ValueError("the clone URL has port 0 or two @ in it")
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS[parts.scheme], parts.path


def _check_host(host: str) -> None:
    address = _address(host)
    if address is None:
        # inet_aton reads 2130706433, 0x7f.1 and 127.1 as addresses, and so do curl and ssh.
        if not _LABELS.match(host) or _NUMBER.match(host.rstrip(".").rpartition(".")[2]):
            raise ValueError(f"{host[:100]!r} is not a valid host")
        if host.rstrip(".") in _METADATA_NAMES:
            raise ValueError(f"{host[:100]!r} is a metadata service")
        return
    for each in _with_embedded(address):
        if each.is_link_local or each.is_multicast or any(each in network for network in _METADATA_NETWORKS):
            raise ValueError(f"{host[:100]!r} is a link-local, multicast or metadata address")
        if each == ipaddress.ip_address("255.255.255.255"):
            raise ValueError(f"{host[:100]!r} is the broadcast address")


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]").rstrip("."))
    except ValueError:
        return None


def _with_embedded(address: Address) -> tuple[Address, ...]:
    """The address, and the IPv4 address that an IPv6 one stands for (mapped, compatible, 6to4, NAT64)."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    last = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    embedded = [each for each in (address.ipv4_mapped, address.sixtofour) if each is not None]
    if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
        embedded.append(last)
    return (address, *embedded)
