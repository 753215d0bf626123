"""URLs that a server gives: locations, following pages, realms. Any text may come."""

import httpx

_LAST_PORT = 65_535


def address(text: str, *, base: httpx.URL | None = None) -> httpx.URL | None:
    """Parse a text as a URL relative to ``base``; return None if it is not one that a connection can be made to."""
    try:
        url = httpx.URL(text) if base is None else base.join(text)
        # A host is decoded only when it is read, and not every one can be, nor can every one be looked up.
        escaped = "%" in url.host
        url.raw_host.decode("ascii").encode("idna")
        # What no host may hold comes escaped.
        return None if escaped or (url.port or 0) > _LAST_PORT else url
    except (httpx.InvalidURL, ValueError):
        return None
