"""Check that a Prefect server answers at its API URL (with ``/api``) and accepts the credentials; read profiles."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from soci_pipeline.errors import CredentialsRefused, InvalidInput, StackError
from soci_pipeline.http_client import HttpClient
from soci_pipeline.prefect_rest.access import login_of, verification_of
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectRefused, PrefectUnavailable
from soci_pipeline.urls import redacted

_START = (
    "Start the server (`prefect server start`); `prefect server status --wait` waits until it is ready. Or correct "
    "PREFECT_API_URL."
)
_REFUSALS = frozenset({httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN})


def active_profile(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of Prefect's active profile, which apply where no environment variable is set.

    Reads ``profiles.toml`` below ``PREFECT_HOME`` as Prefect does, but without importing Prefect, which takes seconds.
    A ``~`` in a variable is not expanded, since Prefect's client does not expand it either. Raises `InvalidInput` if
    the file cannot be read.
    """
    home = Path(environment.get("PREFECT_HOME") or Path.home() / ".prefect")
    path = Path(environment.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"Prefect's profiles in {path} cannot be read: {error}", advice="Correct the file."
        ) from error
    name = environment.get("PREFECT_PROFILE") or document.get("active")
    profiles = document.get("profiles")
    found = profiles.get(name) if isinstance(profiles, dict) else None
    return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def check_access(given: Mapping[str, str]) -> None:
    """Check that the server in these variables accepts their credentials, with a call that requires them.

    Raises `InvalidInput` for an invalid URL, or with the correct one if a server is healthy at ``url/api``;
    `StackError` if no Prefect server answers; `CredentialsRefused` if credentials are missing or rejected.
    """
    url = given.get("PREFECT_API_URL", "")
    with PrefectApi.from_environment(given, timeout_s=5, deadline_s=0) as api:
        _check_path(url, given)
        shown = redacted(url)
        try:
            api.ask("POST", "/work_pools/filter", {"limit": 1})
        except PrefectUnavailable as error:
            raise StackError(f"no Prefect server answers at {shown}: {error.reason}", advice=_START) from error
        except PrefectRefused as error:
            if error.status in _REFUSALS:
                raise _login_refused(shown, given=bool(login_of(given))) from error
            raise StackError(f"the server at {shown} is not a Prefect server: {error.reason}", advice=_START) from error


def _login_refused(shown: str, *, given: bool) -> CredentialsRefused:
    if given:
        return CredentialsRefused(
            f"the Prefect server at {shown} rejects the login",
            advice="Correct PREFECT_API_AUTH_STRING (user:password), which takes precedence, or PREFECT_API_KEY.",
        )
    return CredentialsRefused(
        f"the Prefect server at {shown} requires a login, but none is set",
        advice="Set PREFECT_API_AUTH_STRING to user:password, or PREFECT_API_KEY for Prefect Cloud.",
    )


def _check_path(url: str, given: Mapping[str, str]) -> None:
    base = url.rstrip("/")
    # Skip the check if `api` is already in the path.
    if "api" in urlsplit(base).path.split("/") or not _is_healthy(f"{base}/api/health", given):
        return
    shown = redacted(base)
    raise InvalidInput(
        f"a Prefect server answers at {shown}, but its API is at {shown}/api",
        advice=f"Set PREFECT_API_URL to {shown}/api.",
    )


def _is_healthy(url: str, given: Mapping[str, str]) -> bool:
    """Whether a Prefect server is healthy: it answers ``true`` without credentials, unlike most other servers."""
    try:
        with HttpClient(timeout=5, trust_env=False, verify=verification_of(url, given)) as client:
            response = client.get(url)
    except httpx.HTTPError:
        return False
    return response.is_success and response.content.strip() == b"true"
