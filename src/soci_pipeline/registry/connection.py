"""The connections of one client: TLS with an own certificate authority, one bounded pool, HTTP/1.1."""

import ssl
from pathlib import Path

import httpx

from soci_pipeline import __version__
from soci_pipeline.errors import InvalidInput
from soci_pipeline.registry.reference import is_loopback
from soci_pipeline.registry.settings import ClientSettings


def connect(registry: str, settings: ClientSettings, *, ca_file: Path | None) -> httpx.Client:
    """A connection pool. ``ca_file`` (PEM) is trusted besides the system's authorities.

    Proxies come from the environment, but never for this machine's own loopback.
    """
    return httpx.Client(
        verify=_tls(ca_file),
        http2=False,
        follow_redirects=False,
        trust_env=not is_loopback(registry),
        headers={"User-Agent": f"soci-pipeline/{__version__}"},
        limits=httpx.Limits(
            max_connections=settings.max_connections, max_keepalive_connections=settings.max_connections
        ),
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
