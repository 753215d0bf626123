"""Addresses that a registry gives: locations, following pages, realms. Any text may come."""

import httpx


def address(text: str, *, base: httpx.URL | None = None) -> httpx.URL | None:
    """The URL that a text is, as seen from ``base``; None where it is none."""
    try:
        url = httpx.URL(text) if base is None else base.join(text)
        # A host is decoded only when it is asked for, and not every one can be. What no host may hold comes escaped.
        return None if "%" in url.host else url
    except (httpx.InvalidURL, ValueError):
        return None
