"""The connections of one client: TLS with an own certificate authority, one bounded pool, HTTP/1.1."""

import ssl
from pathlib import Path

import httpx

from soci_pipeline._version import __version__
from soci_pipeline.errors import InvalidInput
from soci_pipeline.http_client import HttpClient
from soci_pipeline.registry.reference import is_local_registry
from soci_pipeline.registry.settings import ClientSettings


def is_plain(registry: str, *, ca_file: Path | None) -> bool:
    """Whether a registry is spoken to without TLS where nobody says so: on loopback, unless an authority is given."""
    return is_local_registry(registry) and ca_file is None


def connect(registry: str, settings: ClientSettings, *, ca_file: Path | None) -> httpx.Client:
    """A connection pool. ``ca_file`` (PEM) is trusted besides the system's authorities.

    Proxies come from the environment, but never for this machine's own loopback.
    """
    limits = httpx.Limits(max_connections=settings.max_connections, max_keepalive_connections=settings.max_connections)
    return HttpClient(
        # A file that cannot be read is refused at once; the system's authorities may wait.
        verify=tls_context if ca_file is None else tls_context(ca_file),
        http2=False,
        trust_env=not is_local_registry(registry),
        headers={"User-Agent": f"soci-pipeline/{__version__}"},
        limits=limits,
    )


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """What a connection trusts: the system's authorities, and those of ``ca_file`` (PEM)."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"{ca_file} is not a readable PEM file of certificates") from error
    return context
