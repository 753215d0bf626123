"""Validate URLs from a server (locations, pagination links, realms), and make URLs safe to show. Input is untrusted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx

LOGIN_IN_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^/@\s]*:[^/@\s]+@", re.IGNORECASE)
"""A URL with a user and a password."""

_LAST_PORT = 65_535


def address(text: str, *, base: httpx.URL | None = None) -> httpx.URL | None:
    """Parse `text` as a URL relative to ``base``; return None if no connection could be made to it."""
    # Only here: commands that check their parameters need no HTTP, whose import takes a tenth of a second.
    import httpx

    try:
        url = httpx.URL(text) if base is None else base.join(text)
        # A host is decoded only on access; decoding or IDNA encoding may fail.
        escaped = "%" in url.host
        url.raw_host.decode("ascii").encode("idna")
        # Characters that are invalid in hosts appear percent-encoded.
        return None if escaped or (url.port or 0) > _LAST_PORT else url
    except (httpx.InvalidURL, ValueError):
        return None


def is_same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether two URLs have the same scheme, host and port."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def over_tls(url: httpx.URL, server: httpx.URL) -> httpx.URL:
    """Correct an http URL from a server that is reached over https: behind a TLS proxy it does not know its own scheme.

    ``server`` is a URL by which it was reached. Only URLs of the same host are changed, to the scheme and port of
    ``server``; a URL never changes from https to http or to another host.
    """
    if url.scheme == "http" and server.scheme == "https" and url.host == server.host:
        return url.copy_with(scheme="https", port=server.port)
    return url


def host_and_port(url: str) -> str:
    """``host:port`` of an http or https URL, with the default port where it has none; empty for any other text."""
    parsed = address(url)
    if parsed is None or not parsed.raw_host:
        return ""
    host = parsed.raw_host.decode("ascii")
    return f"{f'[{host}]' if ':' in host else host}:{parsed.port or (443 if parsed.scheme == 'https' else 80)}"


def redacted(url: str) -> str:
    """Remove user, query and fragment from a URL: they may contain tokens and signatures."""
    if "://" not in url:
        return url.partition("?")[0]
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(not a valid URL)"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
