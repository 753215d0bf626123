"""Whether the address of a Prefect server is the one of its API, which has ``/api`` at its end."""

from urllib.parse import urlsplit

import httpx

from soci_pipeline.errors import InvalidInput
from soci_pipeline.registry.errors import redacted


def check_api_address(url: str) -> None:
    """Raises `InvalidInput` for what is no address, and with the right one where a server is healthy at ``url/api``.

    A server that has ``api`` in its path already is not asked.
    """
    base = url.rstrip("/")
    try:
        if "api" in urlsplit(base).path.split("/") or not _is_healthy(f"{base}/api/health"):
            return
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidInput(
            "PREFECT_API_URL is no address", advice="Set it as in http://127.0.0.1:4200/api, or unset it."
        ) from error
    shown = redacted(base)
    raise InvalidInput(
        f"a Prefect server answers at {shown}, and its API at {shown}/api",
        advice=f"Give Prefect's own address, with /api at its end: set PREFECT_API_URL to {shown}/api.",
    )


def _is_healthy(url: str) -> bool:
    """Whether a Prefect server says so: it answers ``true``, without a login, which another server would hardly do."""
    try:
        response = httpx.get(url, timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    return response.is_success and response.content.strip() == b"true"
