"""The connections of one client: TLS with an own certificate authority, one bounded pool, HTTP/1.1."""

import ssl
import threading
from pathlib import Path

import httpx

from soci_pipeline._version import __version__
from soci_pipeline.errors import InvalidInput
from soci_pipeline.http_client import HttpClient
from soci_pipeline.registry.reference import is_loopback
from soci_pipeline.registry.settings import ClientSettings


def is_plain(registry: str, *, ca_file: Path | None) -> bool:
    """Whether a registry is spoken to without TLS where nobody says so: on loopback, unless an authority is given."""
    return is_loopback(registry) and ca_file is None


def connect(registry: str, settings: ClientSettings, *, ca_file: Path | None) -> httpx.Client:
    """A connection pool. ``ca_file`` (PEM) is trusted besides the system's authorities.

    Proxies come from the environment, but never for this machine's own loopback.
    """
    limits = httpx.Limits(max_connections=settings.max_connections, max_keepalive_connections=settings.max_connections)
    # Reading the system's authorities takes a tenth of a second, which plain http on loopback does not need.
    later = is_plain(registry, ca_file=ca_file)
    return HttpClient(
        # A context that trusts nobody: https goes through the mounted transport alone.
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if later else _tls(ca_file),
        mounts={"https://": _LaterTls(limits)} if later else None,
        http2=False,
        trust_env=not is_loopback(registry),
        headers={"User-Agent": f"soci-pipeline/{__version__}"},
        limits=limits,
    )


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"{ca_file} is not a readable PEM file of certificates") from error
    return context


class _LaterTls(httpx.BaseTransport):
    """Connections with TLS, verified as ever, whose authorities are read when the first one is needed."""

    def __init__(self, limits: httpx.Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._inner: httpx.HTTPTransport | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            if self._inner is None:
                self._inner = httpx.HTTPTransport(verify=_tls(None), limits=self._limits)
        return self._inner.handle_request(request)

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()
