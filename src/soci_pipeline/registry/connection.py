"""The HTTP connections of a client: TLS with an optional private certificate authority, a bounded pool, HTTP/1.1."""

import ssl
from pathlib import Path

import httpx

from soci_pipeline._version import __version__
from soci_pipeline.errors import InvalidInput
from soci_pipeline.http_client import HttpClient
from soci_pipeline.registry.reference import is_local_registry
from soci_pipeline.registry.settings import ClientSettings


def is_plain(registry: str, *, ca_file: Path | None) -> bool:
    """Whether plain HTTP is the default for a registry: on loopback without a ``ca_file``."""
    return is_local_registry(registry) and ca_file is None


def connect(registry: str, settings: ClientSettings, *, ca_file: Path | None) -> httpx.Client:
    """Create a connection pool. The certificates in ``ca_file`` (PEM) are trusted in addition to the system's.

    Proxies are read from the environment, but never used for loopback.
    """
    limits = httpx.Limits(max_connections=settings.max_connections, max_keepalive_connections=settings.max_connections)
    return HttpClient(
        # Load `ca_file` now, so that an unreadable file fails here; the system's authorities are loaded when needed.
        verify=tls_context if ca_file is None else tls_context(ca_file),
        http2=False,
        trust_env=not is_local_registry(registry),
        headers={"User-Agent": f"soci-pipeline/{__version__}"},
        limits=limits,
    )


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Create a TLS context that trusts the system's authorities and those in ``ca_file`` (PEM).

    Raises `InvalidInput` if the file is not readable as PEM.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"{ca_file} is not a readable PEM file of certificates") from error
    return context
