"""The way to a registry, layer by layer: its name, the port, TLS."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import httpx

from soci_pipeline.commands.finding import Mark, Said
from soci_pipeline.registry.connection import tls_context
from soci_pipeline.registry.errors import RegistryUnreachable
from soci_pipeline.registry.reference import is_local_registry
from soci_pipeline.urls import redacted

_SECONDS = 10.0
_EXPIRES_SOON = 14 * 86_400
_PORTS = {"https": 443, "http": 80}


def proxy_of(url: httpx.URL) -> str | None:
    """The proxy of the environment for a URL, without its login; None where requests go straight there."""
    if is_local_registry(_host(url)) or proxy_bypass(_host(url)):
        return None
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    return redacted(found) if found else None


def check_name(url: httpx.URL) -> Said:
    """Resolve the host's name; raises `RegistryUnreachable`."""
    if proxy := proxy_of(url):
        return Said(f"left to the proxy {proxy}")
    try:
        found = socket.getaddrinfo(_host(url), _port(url), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not a valid host name"
        raise RegistryUnreachable(
            f"the name {_host(url)} does not resolve: {cause}",
            url=str(url),
            advice="Check the spelling of the registry's host and this machine's DNS.",
        ) from error
    return Said(", ".join(dict.fromkeys(str(place[4][0]) for place in found)))


def check_connection(url: httpx.URL, ca_file: Path | None) -> Said:
    """Connect, and check the certificate where the registry is spoken to with TLS; raises `RegistryUnreachable`."""
    if proxy := proxy_of(url):
        return Said(f"goes through the proxy {proxy}; the next check shows whether it works")
    with _connected(url) as plain:
        if url.scheme == "http":
            return _plain(url)
        with _encrypted(plain, url, ca_file) as secure:
            return _certificate(secure)


def _host(url: httpx.URL) -> str:
    # Not `url.host`, which decodes the names of IDNA and raises for one that stands for nothing.
    return url.raw_host.decode("ascii")


def _port(url: httpx.URL) -> int:
    return url.port or _PORTS[url.scheme]


@contextlib.contextmanager
def _connected(url: httpx.URL) -> Iterator[socket.socket]:
    try:
        connection = socket.create_connection((_host(url), _port(url)), timeout=_SECONDS)
    except OSError as error:
        cause = error.strerror or "no answer in time"
        raise RegistryUnreachable(
            f"nothing answers at {_host(url)} port {_port(url)}: {cause}",
            url=str(url),
            advice="Check the port, that the registry runs, and firewalls and security groups on the way.",
        ) from error
    with connection:
        yield connection


@contextlib.contextmanager
def _encrypted(plain: socket.socket, url: httpx.URL, ca_file: Path | None) -> Iterator[ssl.SSLSocket]:
    try:
        secure = tls_context(ca_file).wrap_socket(plain, server_hostname=_host(url))
    except ssl.SSLCertVerificationError as error:
        raise RegistryUnreachable(
            f"the certificate of {_host(url)} is not valid here: {error.verify_message}",
            url=str(url),
            advice=_certificate_advice(error),
        ) from error
    except OSError as error:
        reason = f"{_host(url)} port {_port(url)} does not answer with TLS: {error.strerror or type(error).__name__}"
        raise RegistryUnreachable(reason, url=str(url), advice=RegistryUnreachable.tls_advice) from error
    with secure:
        yield secure


def _certificate_advice(error: ssl.SSLCertVerificationError) -> str:
    message = error.verify_message.lower()
    if "expired" in message or "not yet valid" in message:
        return "Renew the registry's certificate, or correct this machine's clock."
    if "mismatch" in message or "not valid for" in message:
        return "Use the name that the certificate is for."
    return RegistryUnreachable.tls_advice


def _certificate(secure: ssl.SSLSocket) -> Said:
    certificate = secure.getpeercert() or {}
    until = str(certificate.get("notAfter", ""))
    detail = f"{secure.version()}, certificate valid until {until}"
    left = ssl.cert_time_to_seconds(until) - time.time() if until else _EXPIRES_SOON
    if left < _EXPIRES_SOON:
        return Said(detail, "Renew the registry's certificate before then.", Mark.WARN)
    return Said(detail)


def _plain(url: httpx.URL) -> Said:
    if is_local_registry(_host(url)):
        return Said("plain HTTP on this machine")
    return Said(
        "plain HTTP: logins and images cross the network unencrypted",
        "Give the registry a certificate, and leave --plain-http (SOCI_PIPELINE_REGISTRY_PLAIN_HTTP) out.",
        Mark.WARN,
    )
