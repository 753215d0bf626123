"""The URL and credentials of the Prefect API, from the environment variables that Prefect itself reads."""

import base64
import re
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from soci_pipeline.errors import InvalidInput
from soci_pipeline.urls import redacted

_LIKE = "Set PREFECT_API_URL to a URL like http://127.0.0.1:4200/api, or unset it."
_CLOUD = re.compile(r"https://api\.prefect\.cloud/api/accounts/(?P<account>[^/]+)/workspaces/(?P<workspace>[^/]+)\Z")
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})


def login_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the authentication headers that Prefect would derive from these variables; empty without credentials."""
    key, auth = environment.get("PREFECT_API_KEY"), environment.get("PREFECT_API_AUTH_STRING")
    # If both are set, Prefect's client uses the user and password.
    return basic(auth.encode()) if auth else bearer(key) if key else {}


def bearer(key: str) -> dict[str, str]:
    """Return the header for an API key of Prefect Cloud."""
    return {"Authorization": f"Bearer {key}"}


def basic(auth: bytes) -> dict[str, str]:
    """Return the header for the ``user:password`` of a self-hosted server."""
    return {"Authorization": "Basic " + base64.b64encode(auth).decode()}


def missing_url() -> InvalidInput:
    """Return the error for commands that need Prefect if PREFECT_API_URL is not set."""
    return InvalidInput(
        "PREFECT_API_URL is not set",
        advice="Set it to the URL of the Prefect API, which ends with /api, for example http://127.0.0.1:4200/api.",
    )


def checked_url(url: str) -> str:
    """Return a Prefect API URL without trailing slashes; raise `InvalidInput` if it is not a valid URL."""
    try:
        parts = urlsplit(url)
        # Accessing the port validates it, and encoding the host validates that it can be resolved.
        _ = parts.port, httpx.URL(url).raw_host.decode("ascii").encode("idna")
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidInput("PREFECT_API_URL is not a valid URL", advice=_LIKE) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidInput("PREFECT_API_URL must start with http:// or https://", advice=_LIKE)
    return url.rstrip("/")


def verification_of(url: str, environment: Mapping[str, str]) -> ssl.SSLContext | bool:
    """Return how Prefect would verify the server's certificate with these variables; True if they do not say.

    Raises `InvalidInput` if the certificate file cannot be read.
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
            advice="Set PREFECT_API_SSL_CERT_FILE (or SSL_CERT_FILE) to a file of certificates (PEM), or unset it.",
        ) from error


def run_page(environment: Mapping[str, str], run: str) -> str:
    """Return the URL of a flow run in the UI: under ``PREFECT_UI_URL``, or derived from the URL of the API."""
    api = environment.get("PREFECT_API_URL", "").rstrip("/")
    cloud = _CLOUD.match(api)
    if cloud is not None:
        beside = f"https://app.prefect.cloud/account/{cloud['account']}/workspace/{cloud['workspace']}"
    else:
        beside = api.removesuffix("/api")
    return f"{(environment.get('PREFECT_UI_URL') or redacted(beside)).rstrip('/')}/runs/flow-run/{run}"
