"""A connection to Prefect's REST API: requests with authentication, CSRF token and retries."""

import json
import os
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from soci_pipeline.errors import TEMPORARY_STATUSES, InvalidInput
from soci_pipeline.hosts import is_loopback
from soci_pipeline.http_client import BadRedirect, HttpClient, text_of
from soci_pipeline.prefect_rest.access import checked_url, login_of, missing_url, verification_of
from soci_pipeline.prefect_rest.errors import ADVICE, PrefectRefused, PrefectUnavailable
from soci_pipeline.retry import retry_after_s, retry_while_unavailable

# Rejections of the request itself are permanent; those by the server, authentication or a proxy may be temporary.
_LASTING = frozenset({400, 409, 413, 414, 422})
_MOVED = (
    "Use Prefect's own URL, which ends with /api; redirects are not followed, because credentials would be sent along."
)

Authorization = Callable[[], Mapping[str, str]]
"""Returns the headers that authenticate a call; called for every request, so a rotated secret takes effect at once. May
raise `InvalidInput` if there is currently no secret."""


def _no_credentials() -> Mapping[str, str]:
    return {}


class Connection:
    """A client of one server or Cloud workspace; ``api_url`` ends in ``/api``. Thread-safe, a context manager.

    Calls that fail temporarily are retried for ``deadline_s`` seconds, then `PrefectUnavailable` is raised. All other
    failures raise `PrefectRefused`. The variables in ``environment``, or of this process if None, determine how the
    server's certificate is verified. Raises `InvalidInput` for an invalid URL or an unreadable certificate file.
    """

    def __init__(
        self,
        api_url: str,
        *,
        authorization: Authorization = _no_credentials,
        timeout_s: float = 30,
        deadline_s: float = 120,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._authorization = authorization
        self._deadline_s = deadline_s
        self._csrf: dict[str, str] = {}
        url = checked_url(api_url)
        self._client = HttpClient(
            base_url=url,
            verify=verification_of(url, os.environ if environment is None else environment),
            timeout=timeout_s,
            headers={"User-Agent": "soci-pipeline", "Accept": "application/json"},
            # An environment proxy cannot reach a server on this machine's loopback interface.
            trust_env=not is_loopback(urlsplit(url).hostname or ""),
        )

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, timeout_s: float = 30, deadline_s: float = 120
    ) -> Self:
        """Create a client of the server at ``PREFECT_API_URL``, with the credentials that Prefect itself would use.

        Raises `InvalidInput` if the variable is unset or not a valid URL.
        """
        given = os.environ if environment is None else environment
        url = given.get("PREFECT_API_URL", "")
        if not url:
            raise missing_url()
        return cls(
            url,
            authorization=lambda: login_of(given),
            timeout_s=timeout_s,
            deadline_s=deadline_s,
            environment=given,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, method: str, path: str, body: Any = None, *, missing: Any = None) -> Any:
        """Make an idempotent call with retries; return ``missing`` instead of failing on a 404, unless it is None."""
        return retry_while_unavailable(
            lambda: self._once(method, path, body, missing), PrefectUnavailable, deadline_s=self._deadline_s
        )

    def create(self, path: str, body: Mapping[str, Any], exists: Callable[[], bool]) -> None:
        """Make something of which Prefect would take a second one.

        The answer to a failed attempt may be all that was lost, so ``exists`` is checked before the next attempt.
        """
        attempts = 0

        def attempt() -> None:
            nonlocal attempts
            attempts += 1
            if attempts == 1 or not exists():
                self._once("POST", path, body, None)

        retry_while_unavailable(attempt, PrefectUnavailable, deadline_s=self._deadline_s)

    def list_of(self, path: str, query: Mapping[str, Any], *, missing: Any = None) -> list[Any]:
        """Query a filter endpoint and return its list; raise `PrefectRefused` if the answer is not a list."""
        answer = self.ask("POST", path, query, missing=missing)
        if not isinstance(answer, list):
            raise PrefectRefused("Prefect did not return a list for a filter")
        return answer

    def _once(self, method: str, path: str, body: Any, missing: Any) -> Any:
        try:
            response = self._send(method, path, body)
            status = response.status_code
            if status == httpx.codes.NOT_FOUND and missing is not None:
                return missing
            if response.is_success:
                return _content(response)
        except httpx.LocalProtocolError as error:
            # `from None`: its message quotes the header that cannot be sent, which may contain the credentials.
            raise PrefectUnavailable(f"Prefect does not answer ({_cause(error)})") from None
        except BadRedirect as error:
            raise PrefectRefused(f"Prefect {error}", advice=_MOVED, temporary=True) from error
        except httpx.HTTPError as error:
            raise PrefectUnavailable(f"Prefect does not answer ({_cause(error)})") from error
        detail = text_of(response)[:300].replace("\n", " ")
        if status in TEMPORARY_STATUSES or _lacks_csrf_token(response):
            wait = retry_after_s(response.headers.get("retry-after"))
            raise PrefectUnavailable(f"Prefect answered {status} to {method} {path}: {detail}", retry_after=wait)
        raise PrefectRefused(
            f"Prefect answered {status} to {method} {path}: {detail}",
            advice=_MOVED if response.is_redirect else ADVICE.get(status),
            temporary=status not in _LASTING,
            status=status,
        )

    def _send(self, method: str, path: str, body: Any) -> httpx.Response:
        """Send a request; if the CSRF token is missing or no longer valid, get a new one and send it once more."""
        response = self._client.request(method, path, json=body, headers=self._credentials() | self._csrf)
        # GET requests need no token, including the one that fetches a token.
        if method == "GET" or not _lacks_csrf_token(response):
            return response
        self._csrf = self._new_csrf_token()
        return self._client.request(method, path, json=body, headers=self._credentials() | self._csrf)

    def _new_csrf_token(self) -> dict[str, str]:
        # A server keeps one token per client: with a new client ID, threads do not invalidate each other's tokens.
        client = str(uuid.uuid4())
        answer = self._once("GET", f"/csrf-token?client={client}", None, None)
        if not isinstance(answer, dict) or not isinstance(answer.get("token"), str):
            raise PrefectUnavailable("Prefect returned no CSRF token; another program may be listening there")
        return {"Prefect-Csrf-Token": answer["token"], "Prefect-Csrf-Client": client}

    def _credentials(self) -> dict[str, str]:
        try:
            headers = dict(self._authorization())
            "".join(headers.values()).encode("ascii")
        except InvalidInput as error:
            raise PrefectRefused(
                f"the credentials for Prefect: {error.reason}", advice=error.advice, temporary=True
            ) from error
        except UnicodeEncodeError:
            # `from None`: its message quotes the credentials.
            raise PrefectRefused(
                "the credentials for Prefect contain characters that are not allowed in a header", advice=ADVICE[401]
            ) from None
        return headers


def _content(response: httpx.Response) -> Any:
    """Parse the JSON of a response; return None for 204, raise `PrefectUnavailable` if it is not JSON."""
    if response.status_code == httpx.codes.NO_CONTENT:
        return None
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError) as error:
        raise PrefectUnavailable("Prefect did not return valid JSON; another program may be listening there") from error


def _lacks_csrf_token(response: httpx.Response) -> bool:
    """Whether the server rejected the request because its CSRF token is missing or unknown."""
    return response.status_code == httpx.codes.FORBIDDEN and "CSRF token" in text_of(response)


def _cause(error: httpx.HTTPError) -> str:
    """Return the message of a network error, else only the error's type: other messages might quote a header."""
    said = str(error) if isinstance(error, httpx.NetworkError | httpx.ProxyError) else ""
    return said or type(error).__name__
