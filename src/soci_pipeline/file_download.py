"""Download files from http(s) URLs: limited in size, hashed while reading, and never left incomplete."""

import hashlib
from pathlib import Path

import httpx

from soci_pipeline import urls
from soci_pipeline.errors import TEMPORARY_STATUSES, DamagedContent, DiskFull, InvalidInput, SociPipelineError
from soci_pipeline.full_disk import FULL
from soci_pipeline.http_client import BadRedirect, HttpClient
from soci_pipeline.urls import redacted

_CHUNK = 1 << 20
_SECONDS = 60.0


class NotFetched(SociPipelineError):
    """The download failed. Callers add context."""


def check_address(text: str) -> None:
    """Raise `InvalidInput` if ``text`` is not an http(s) URL."""
    url = urls.address(text)
    if url is None or url.scheme not in ("http", "https") or not url.host:
        raise InvalidInput(f"not a valid URL: {redacted(text)[:200]!r}", advice="The format is https://host/path.")


def fetch(address: str, target: Path, *, limit: int, sha256: str | None = None) -> None:
    """Download a URL to the file ``target``, byte for byte; redirects are followed.

    ``limit`` is in bytes, ``sha256`` in lower-case hex. Raises `NotFetched`, `DamagedContent` if the content does not
    match ``sha256``, `InvalidInput` for an invalid URL or content larger than the limit, `DiskFull`; then no file is
    left.
    """
    check_address(address)
    shown = redacted(address)
    whole = False
    try:
        found = _written(address, shown, target, limit)
        if sha256 is not None and found != sha256:
            raise DamagedContent(f"{shown} has the digest sha256:{found}, not sha256:{sha256}")
        whole = True
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        temporary = status in TEMPORARY_STATUSES
        # Without a cause: httpx's message contains the full URL and the one it was redirected to.
        raise NotFetched(f"{shown} answered with status {status}", temporary=temporary) from None
    except httpx.HTTPError as error:
        raise NotFetched(f"cannot download {shown}: {error}", temporary=not isinstance(error, BadRedirect)) from error
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(f"{shown} cannot be written to {target.parent}: {error.strerror}") from error
        raise
    finally:
        if not whole:
            target.unlink(missing_ok=True)


def _written(address: str, shown: str, target: Path, limit: int) -> str:
    """Write the file and return the SHA-256 of its content in hex."""
    state, size = hashlib.sha256(), 0
    # Content that is compared with a SHA-256 must not be encoded for transfer.
    headers = {"Accept-Encoding": "identity"}
    with (
        # Credentials in the URL are sent only to its own scheme, host and port, not to redirect targets.
        HttpClient(follow_redirects=True, timeout=_SECONDS) as client,
        client.stream("GET", address, headers=headers) as response,
        target.open("wb") as file,
    ):
        response.raise_for_status()
        for chunk in response.iter_raw(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise InvalidInput(f"{shown} is larger than {limit} bytes")
            state.update(chunk)
            file.write(chunk)
    return state.hexdigest()
