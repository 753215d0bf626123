"""Whether the address of a Prefect server is the one of its API, which has ``/api`` at its end."""

from urllib.parse import urlsplit

from soci_pipeline.errors import InvalidInput
from soci_pipeline.local.ports import answers
from soci_pipeline.registry.errors import redacted


def check_api_address(url: str) -> None:
    """Raises `InvalidInput` with the right address where a server's API answers at ``url/api``, and not at ``url``.

    One that has ``/api`` in its path already is not asked.
    """
    base = url.rstrip("/")
    if "/api" in urlsplit(base).path or not answers(f"{base}/api/health"):
        return
    shown = redacted(base)
    raise InvalidInput(
        f"a Prefect server answers at {shown}, and its API at {shown}/api",
        advice=f"Give Prefect's own address, with /api at its end: set PREFECT_API_URL to {shown}/api.",
    )
