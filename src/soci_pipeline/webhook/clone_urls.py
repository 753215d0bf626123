"""Validate the clone URLs and registry hosts of an event before a worker connects to them with credentials."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from soci_pipeline.aws.codecommit import CodeCommitSource
from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.address import DEFAULT_PORTS, check_url
from soci_pipeline.hosts import is_forbidden

# ASCII letters, digits and the characters that paths need: no quotes, `$(...)`, `%`, `?`, `#` or spaces.
_PLAIN = re.compile(r"[A-Za-z0-9._~:/@+=,\[\]-]+\Z")
_SCP = re.compile(r"(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*@)?(?P<host>[^@:/]+):(?P<path>.+)\Z")
_LABELS = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?\Z")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\Z", re.I)


@dataclass(frozen=True, slots=True)
class CloneUrl:
    """A parsed clone URL: ``scheme``, ``host`` (lower case), ``port`` and the path of the repository on that host."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse and validate a URL; raise ValueError for a local path, an unsupported scheme or a forbidden host."""
        if not _PLAIN.match(url):
            raise ValueError("the clone URL contains a character other than letters, digits and . _ ~ : / @ + = , -")
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
            raise ValueError("the clone URL contains .. in its path")
        return cls(scheme, host, port, path)

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what credentials are bound to."""
        return self.scheme, self.host, self.port

    @property
    def repository(self) -> str:
        """The path without leading and trailing slashes and without ``.git``."""
        return self.path.strip("/").removesuffix(".git")


@dataclass(frozen=True, slots=True)
class CloneHost:
    """The base URL of a rule's repositories: scheme, host, port, and a path prefix if the forge has one."""

    url: CloneUrl

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``https://git.example.com``, with an optional port and path; raise ValueError."""
        if "://" not in text or text.count("/") < 2:
            raise ValueError(f"{text[:100]!r} is not a scheme and host, for example https://git.example.com")
        # With a repository appended it is a clone URL, whose validation covers the host as well.
        url = CloneUrl.parse(f"{text.rstrip('/')}/repository")
        return cls(CloneUrl(url.scheme, url.host, url.port, url.path.removesuffix("/repository")))

    def holds(self, url: CloneUrl, repository: str) -> bool:
        """Whether the URL is the clone URL of the repository on this host."""
        return url.origin == self.url.origin and url.repository == f"{self.url.path}/{repository}".strip("/")


def registry_host(repository: str) -> str:
    """Return the host of ``host[:port]/name``; raise ValueError if an event must not name it."""
    host = repository.partition("/")[0].partition(":")[0].lower()
    _check_host(host)
    return host


def _scp(url: str) -> tuple[str, str, int, str]:
    """Split ``user@host:path``; a bare word before the colon is a scheme (``javascript:``), not a host."""
    found = _SCP.match(url)
    if found is None or url.startswith("/"):
        raise ValueError("the URL of the repository is a local path")
    if found["user"] is None and "." not in found["host"]:
        raise ValueError(f"{found['host'][:30]!r} is not a supported scheme; use one of {', '.join(DEFAULT_PORTS)}")
    return "ssh", found["host"].lower(), DEFAULT_PORTS["ssh"], found["path"]


def _split(url: str) -> tuple[str, str, int, str]:
    parts = urlsplit(url)
    if url.partition("://")[0] not in DEFAULT_PORTS:
        # With file:// a worker would read its local disk for the sender.
        raise ValueError(f"{parts.scheme[:30]!r} is not a supported scheme; use one of {', '.join(DEFAULT_PORTS)}")
    if parts.port == 0 or parts.netloc.count("@") > 1:
        raise ValueError("the clone URL contains port 0 or two @")
    return parts.scheme, (parts.hostname or "").lower(), parts.port or DEFAULT_PORTS[parts.scheme], parts.path


def _check_host(host: str) -> None:
    try:
        ipaddress.ip_address(host.rstrip("."))
    except ValueError:
        # Other notations of IPv4 addresses that curl and ssh accept: 2130706433, 0x7f.1, 127.1.
        if not _LABELS.match(host) or _NUMBER.match(host.rstrip(".").rpartition(".")[2]):
            raise ValueError(f"{host[:100]!r} is not a valid host") from None
    if is_forbidden(host):
        raise ValueError(f"{host[:100]!r} is a link-local, multicast, broadcast or metadata host")
