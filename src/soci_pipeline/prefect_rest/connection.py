"""A connection to Prefect's REST API: one call, with the login, the CSRF token and patience."""

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
from soci_pipeline.prefect_rest.access import checked_url, login_of, no_url, verification_of
from soci_pipeline.prefect_rest.errors import ADVICE, PrefectRefused, PrefectUnavailable
from soci_pipeline.retry import retry_after_s, while_unavailable

# Refusals of what was sent, which stay. Any other one is of the server, a login or a proxy, and may pass.
_LASTING = frozenset({400, 409, 413, 414, 422})
_MOVED = "Give Prefect's own address, with /api at its end: no redirect is followed, since credentials would go along."

Authorization = Callable[[], Mapping[str, str]]
"""The headers that authenticate a call; asked for each time, so that a rotated secret counts at once. May raise
`InvalidInput` where there is no secret just now."""


def _nobody() -> Mapping[str, str]:
    return {}


class Connection:
    """A client of one server or Cloud workspace, ``api_url`` with ``/api`` at its end; thread-safe, a context manager.

    A call that fails for a while is made again for ``patience_s`` seconds, and then raises `PrefectUnavailable`.
    Everything else that is no success raises `PrefectRefused`. The variables of ``environment``, those of this process
    where it is None, say how the server's certificate is verified. Raises `InvalidInput` for an address or a file of
    certificates that cannot be meant.
    """

    def __init__(
        self,
        api_url: str,
        *,
        authorization: Authorization = _nobody,
        timeout_s: float = 30,
        patience_s: float = 120,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._authorization = authorization
        self._patience_s = patience_s
        self._csrf: dict[str, str] = {}
        url = checked_url(api_url)
        self._client = HttpClient(
            base_url=url,
            verify=verification_of(url, os.environ if environment is None else environment),
            timeout=timeout_s,
            headers={"User-Agent": "soci-pipeline", "Accept": "application/json"},
            # A proxy of the environment cannot reach a server on this machine's loopback.
            trust_env=not is_loopback(urlsplit(url).hostname or ""),
        )

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, timeout_s: float = 30, patience_s: float = 120
    ) -> Self:
        """A client of the server that ``PREFECT_API_URL`` names, with the login that Prefect itself would take.

        Raises `InvalidInput` where it names none, or what cannot be one.
        """
        given = os.environ if environment is None else environment
        url = given.get("PREFECT_API_URL", "")
        if not url:
            raise no_url()
        return cls(
            url,
            authorization=lambda: login_of(given),
            timeout_s=timeout_s,
            patience_s=patience_s,
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
        """Make a call that can be repeated, with patience; ``missing`` is the answer where there is no such thing."""
        return while_unavailable(
            lambda: self._once(method, path, body, missing), PrefectUnavailable, patience_s=self._patience_s
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

        while_unavailable(attempt, PrefectUnavailable, patience_s=self._patience_s)

    def list_of(self, path: str, query: Mapping[str, Any], *, missing: Any = None) -> list[Any]:
        """The answer to a filter, which is a list."""
        answer = self.ask("POST", path, query, missing=missing)
        if not isinstance(answer, list):
            raise PrefectRefused("Prefect's answer to a filter is not a list")
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
            # Its words quote the header that cannot be sent, which may be the login.
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
        """Send a request, and once more with a new CSRF token where the server wants one, or another one."""
        response = self._client.request(method, path, json=body, headers=self._credentials() | self._csrf)
        # Reading needs no token, nor does asking for one.
        if method == "GET" or not _lacks_csrf_token(response):
            return response
        self._csrf = self._new_csrf_token()
        return self._client.request(method, path, json=body, headers=self._credentials() | self._csrf)

    def _new_csrf_token(self) -> dict[str, str]:
        # A server has one token for each client: with a name of its own, no thread's token replaces another's.
        client = str(uuid.uuid4())
        answer = self._once("GET", f"/csrf-token?client={client}", None, None)
        if not isinstance(answer, dict) or not isinstance(answer.get("token"), str):
            raise PrefectUnavailable("Prefect's answer has no CSRF token; something else may listen there")
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
            # Not as a cause: its words quote them.
            raise PrefectRefused("the credentials for Prefect: no header can carry them", advice=ADVICE[401]) from None
        return headers


def _content(response: httpx.Response) -> Any:
    """The answer as Python has JSON; None where there is none by intent."""
    if response.status_code == httpx.codes.NO_CONTENT:
        return None
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError) as error:
        raise PrefectUnavailable("Prefect's answer is not JSON; something else may listen there") from error


def _lacks_csrf_token(response: httpx.Response) -> bool:
    """Whether a server that protects itself from CSRF misses its token, or has forgotten it."""
    return response.status_code == httpx.codes.FORBIDDEN and "CSRF token" in text_of(response)


def _cause(error: httpx.HTTPError) -> str:
    """What the network said, as that a name is not known; what others say could repeat a header, so the kind alone."""
    said = str(error) if isinstance(error, httpx.NetworkError | httpx.ProxyError) else ""
    return said or type(error).__name__
