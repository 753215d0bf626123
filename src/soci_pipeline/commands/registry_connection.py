"""The connection to a registry, layer by layer: name, port, TLS."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import httpx

from soci_pipeline.commands.finding import CheckResult, Mark
from soci_pipeline.registry.connection import tls_context
from soci_pipeline.registry.errors import RegistryUnreachable
from soci_pipeline.registry.reference import is_local_registry
from soci_pipeline.urls import redacted

_SECONDS = 10.0
_EXPIRES_SOON = 14 * 86_400
_PORTS = {"https": 443, "http": 80}


def proxy_of(url: httpx.URL) -> str | None:
    """Return the environment's proxy for a URL, without its login; None if requests are sent directly."""
    if is_local_registry(_host(url)) or proxy_bypass(_host(url)):
        return None
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    return redacted(found) if found else None


def check_name(url: httpx.URL) -> CheckResult:
    """Resolve the host name; raise `RegistryUnreachable` if that fails."""
    if proxy := proxy_of(url):
        return CheckResult(f"left to the proxy {proxy}")
    try:
        found = socket.getaddrinfo(_host(url), _port(url), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not a valid host name"
        raise RegistryUnreachable(
            f"the name {_host(url)} does not resolve: {cause}",
            url=str(url),
            advice="Check the spelling of the registry's host and this machine's DNS.",
        ) from error
    return CheckResult(", ".join(dict.fromkeys(str(place[4][0]) for place in found)))


def check_connection(url: httpx.URL, ca_file: Path | None) -> CheckResult:
    """Connect, and check the certificate if the registry uses TLS; raise `RegistryUnreachable` if that fails."""
    if proxy := proxy_of(url):
        return CheckResult(f"goes through the proxy {proxy}; the next check shows whether it works")
    with _connected(url) as plain:
        if url.scheme == "http":
            return _plain(url)
        with _encrypted(plain, url, ca_file) as secure:
            return _certificate(secure)


def _host(url: httpx.URL) -> str:
    # Not `url.host`, which decodes IDNA names and raises for an invalid one.
    return url.raw_host.decode("ascii")


def _port(url: httpx.URL) -> int:
    return url.port or _PORTS[url.scheme]


@contextlib.contextmanager
def _connected(url: httpx.URL) -> Iterator[socket.socket]:
    try:
        connection = socket.create_connection((_host(url), _port(url)), timeout=_SECONDS)
    except OSError as error:
        cause = error.strerror or "no answer before the timeout"
        raise RegistryUnreachable(
            f"nothing answers at {_host(url)} port {_port(url)}: {cause}",
            url=str(url),
            advice="Check the port, that the registry is running, and the firewalls and security groups in between.",
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
        return "Use the name in the certificate."
    return RegistryUnreachable.tls_advice


def _certificate(secure: ssl.SSLSocket) -> CheckResult:
    certificate = secure.getpeercert() or {}
    until = str(certificate.get("notAfter", ""))
    detail = f"{secure.version()}, certificate valid until {until}"
    left = ssl.cert_time_to_seconds(until) - time.time() if until else _EXPIRES_SOON
    if left < _EXPIRES_SOON:
        return CheckResult(detail, "Renew the registry's certificate before then.", Mark.WARN)
    return CheckResult(detail)


def _plain(url: httpx.URL) -> CheckResult:
    if is_local_registry(_host(url)):
        return CheckResult("plain HTTP on this machine")
    return CheckResult(
        "plain HTTP: logins and images cross the network unencrypted",
        "Set up a certificate for the registry, and omit --plain-http (SOCI_PIPELINE_REGISTRY_PLAIN_HTTP).",
        Mark.WARN,
    )
