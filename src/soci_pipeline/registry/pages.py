"""Pagination of registry lists, with limits against lists that never end."""

import re
from collections.abc import Iterator

import httpx

from soci_pipeline.registry import scopes
from soci_pipeline.registry.errors import BrokenAnswer
from soci_pipeline.registry.operations import OK, Operations
from soci_pipeline.registry.transport import Answer, Call
from soci_pipeline.urls import address, over_tls, redacted

_MAX_LINK = 8 << 10
_MAX_PAGES = 1000
_PAGE_BYTES = 8 << 20
_LIST_BYTES = 64 << 20
# Quay once sent the URL without angle brackets. The possessive quantifier prevents quadratic backtracking on long URLs.
_LINK = re.compile(r"\s*(?:<([^<>]{1,4096})>|([^\s<>;]{1,4096}+))((?:\s*;[^;,]*)*)(?:,|\Z)")
_IS_NEXT = re.compile(r";\s*rel\s*=\s*[\"']?(?:[^\"';]*\s)?next\b", re.IGNORECASE)


def pages(operations: Operations, first: httpx.URL, repository: str) -> Iterator[Answer]:
    """Yield the pages of a list, all within one deadline.

    Raises `BrokenAnswer` for a list that repeats a page, exceeds a limit, or has an invalid pagination link.
    """
    url: httpx.URL | None = first
    seen: set[str] = set()
    deadline, size = operations.deadline(), 0
    while url is not None:
        if str(url) in seen or len(seen) >= _MAX_PAGES:
            raise BrokenAnswer(f"{redacted(str(first))} has endless pages", url=str(first))
        seen.add(str(url))
        call = Call("GET", url, scopes.pull(repository), OK)
        answer = operations.call(call, limit=_PAGE_BYTES, deadline=deadline)
        size += len(answer.body)
        if size > _LIST_BYTES:
            raise BrokenAnswer(f"{redacted(str(first))} lists more than {_LIST_BYTES} bytes", url=str(first))
        yield answer
        url = _following(operations, answer, first)


def _following(operations: Operations, answer: Answer, first: httpx.URL) -> httpx.URL | None:
    """Return the URL of the next page, or None after the last."""
    link = _next_link(answer.headers.get("link", ""))
    if not link:
        return None
    url = address(link, base=answer.url)
    if url is None:
        raise BrokenAnswer(f"{redacted(str(first))} has an invalid link to its next page", url=str(first))
    url = over_tls(url, operations.transport.base)
    if not operations.transport.is_own(url):
        raise BrokenAnswer(
            f"{redacted(str(first))} links to another host for its next page; not followed", url=str(first)
        )
    return url


def _next_link(header: str) -> str | None:
    """Return the URL with ``rel="next"`` from a Link header (RFC 8288), or None."""
    links = (match for match in _LINK.finditer(header[:_MAX_LINK]) if _IS_NEXT.search(match.group(3)))
    return next((match.group(1) or match.group(2) for match in links), None)
