"""Where Prefect is and how to sign in to it, by the variables that Prefect itself reads."""

import base64
import re
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from soci_pipeline.errors import InvalidInput
from soci_pipeline.urls import redacted

_LIKE = "Set PREFECT_API_URL as in http://127.0.0.1:4200/api (a port is a number), or unset it."
_CLOUD = re.compile(r"https://api\.prefect\.cloud/api/accounts/(?P<account>[^/]+)/workspaces/(?P<workspace>[^/]+)\Z")
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})


def login_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The headers of the login that Prefect itself would take from these variables; none where there is none."""
    key, auth = environment.get("PREFECT_API_KEY"), environment.get("PREFECT_API_AUTH_STRING")
    # With both, Prefect's client takes the user and password.
    return basic(auth.encode()) if auth else bearer(key) if key else {}


def bearer(key: str) -> dict[str, str]:
    """The header for an API key of Prefect Cloud."""
    return {"Authorization": f"Bearer {key}"}


def basic(auth: bytes) -> dict[str, str]:
    """The header for a server's own ``user:password``."""
    return {"Authorization": "Basic " + base64.b64encode(auth).decode()}


def no_url() -> InvalidInput:
    """What a command that needs Prefect says where nobody named it."""
    return InvalidInput(
        "PREFECT_API_URL is not set",
        advice="Set it to the address of the Prefect API, with /api at its end, as in http://127.0.0.1:4200/api.",
    )


def checked_url(url: str) -> str:
    """The address of a Prefect API without a slash at its end; raises `InvalidInput` for what cannot be one."""
    try:
        parts = urlsplit(url)
        # Reading the port says whether it is one, and encoding the name whether it can be looked up.
        _ = parts.port, httpx.URL(url).raw_host.decode("ascii").encode("idna")
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidInput("PREFECT_API_URL is no address", advice=_LIKE) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidInput("PREFECT_API_URL is no address that begins with http:// or https://", advice=_LIKE)
    return url.rstrip("/")


def verification_of(url: str, environment: Mapping[str, str]) -> ssl.SSLContext | bool:
    """How Prefect itself would verify the server's certificate with these variables; True where they say nothing.

    Raises `InvalidInput` for a file of certificates that cannot be read.
    """
    if urlsplit(url).scheme != "https":
        return True
    if environment.get("PREFECT_API_TLS_INSECURE_SKIP_VERIFY", "").lower() in _TRUE:
        return False
    file = environment.get("PREFECT_API_SSL_CERT_FILE") or environment.get("SSL_CERT_FILE")
    try:
        return ssl.create_default_context(cafile=file) if file else True
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"the certificates for Prefect in {file!r} cannot be read: {getattr(error, 'strerror', error)}",
            advice="Have PREFECT_API_SSL_CERT_FILE (or SSL_CERT_FILE) name a file of certificates (PEM), or unset it.",
        ) from error


def run_page(environment: Mapping[str, str], run: str) -> str:
    """The page of a flow run in the UI: at ``PREFECT_UI_URL``, else beside the API or on Prefect Cloud."""
    api = environment.get("PREFECT_API_URL", "").rstrip("/")
    cloud = _CLOUD.match(api)
    if cloud is not None:
        beside = f"https://app.prefect.cloud/account/{cloud['account']}/workspace/{cloud['workspace']}"
    else:
        beside = api.removesuffix("/api")
    return f"{(environment.get('PREFECT_UI_URL') or redacted(beside)).rstrip('/')}/runs/flow-run/{run}"
