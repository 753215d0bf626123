"""The calls of Prefect's REST API that this library makes, over plain HTTP: Prefect itself is not imported.

The receiver hands runs over and looks at what becomes of them, the local stack starts and follows publications. Every
call can be repeated; an idempotency key makes that true of creating a run, since the server answers with the run that
it made the first time.
"""

import base64
import contextlib
import json
import os
import ssl
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from soci_pipeline.errors import TEMPORARY_STATUSES, InvalidInput, StackError
from soci_pipeline.http_client import BadRedirect, HttpClient, text_of
from soci_pipeline.registry.reference import is_loopback
from soci_pipeline.retry import retry_after_s

RECORD = "soci-branch-record"
"""The type of the artifact that carries a branch's record back."""

FINAL_STATES = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
"""The types of state that a flow run does not leave by itself."""

# Refusals of what was sent, which stay. Any other one is of the server, a login or a proxy, and may pass.
_LASTING = frozenset({400, 409, 413, 414, 422})
_PAUSE_S = 1.0
_ADVICE = {
    401: "Check the credentials for Prefect: those of the receiver, PREFECT_API_AUTH_STRING or PREFECT_API_KEY.",
    403: "The credentials need the right to create and read runs.",
    404: "Deploy it: `prefect --no-prompt deploy --all` from the project's folder.",
}
_LIKE = "Set PREFECT_API_URL as in http://127.0.0.1:4200/api (a port is a number), or unset it."
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_MOVED = "Give Prefect's own address, with /api at its end: no redirect is followed, since credentials would go along."

Authorization = Callable[[], Mapping[str, str]]
"""The headers that authenticate a call; asked for each time, so that a rotated secret counts at once. May raise
`InvalidInput` where there is no secret just now."""


class PrefectUnavailable(StackError):
    """Prefect does not answer, or answers that it cannot just now (``503 database is locked`` among others).

    ``retry_after_s`` is what it says about the next attempt.
    """

    default_advice = "Start the Prefect server, or wait: the same call may succeed later."

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason, temporary=True)
        self.retry_after_s = retry_after_s


class PrefectRefused(StackError):
    """Prefect answered, and does not do it. ``temporary`` where setting Prefect up right would change that.

    ``status`` is that of its answer; None where that was a success whose content cannot be meant.
    """

    def __init__(
        self, reason: str, *, advice: str | None = None, temporary: bool = False, status: int | None = None
    ) -> None:
        super().__init__(reason, advice=advice, temporary=temporary)
        self.status = status


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a flow run stands."""

    kind: str
    message: str

    @property
    def is_final(self) -> bool:
        return self.kind in FINAL_STATES

    @property
    def is_completed(self) -> bool:
        return self.kind == "COMPLETED"


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


def _nobody() -> Mapping[str, str]:
    return {}


class PrefectApi:
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
            trust_env=not is_loopback(urlsplit(url).netloc.rpartition("@")[2]),
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

    def create_run(
        self, deployment: str, parameters: Mapping[str, Any], *, key: str | None = None, tags: Sequence[str] = ()
    ) -> str:
        """Make a run of ``flow/deployment``; returns its id, the same one for the same ``key``.

        Raises `PrefectUnavailable` where a later try may succeed by itself, `PrefectRefused` otherwise (``temporary``
        where the deployment or the credentials are wrong, which somebody may put right).
        """
        flow, _, name = deployment.partition("/")
        found = self._call("GET", f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}")
        body = {"parameters": dict(parameters), "idempotency_key": key or str(uuid.uuid4()), "tags": list(tags)}
        return _id(self._call("POST", f"/deployments/{_id(found)}/create_flow_run", body))

    def state(self, run: str) -> RunState:
        """The state of a flow run."""
        answer = self._call("GET", f"/flow_runs/{run}")
        with _expected_shape():
            state = answer.get("state") or {}
            return RunState(kind=str(answer.get("state_type")), message=str(state.get("message") or ""))

    def states(self, runs: Sequence[str]) -> dict[str, str]:
        """The type of each run's state (``COMPLETED``…); a run that was deleted is not in the answer."""
        if not runs:
            return {}
        found = self._list("/flow_runs/filter", {"flow_runs": {"id": {"any_": list(runs)}}, "limit": len(runs)})
        with _expected_shape():
            return {_id(each): str(each.get("state_type") or "SCHEDULED") for each in found}

    def cancel(self, run: str) -> None:
        """Ask for a flow run to be cancelled."""
        self._call("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})

    def children(self, run: str) -> dict[str, str]:
        """The flow runs that a run has started as its own: names by id."""
        query = {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}}
        with _expected_shape():
            return {_id(child): str(child["name"]) for child in self._list("/flow_runs/filter", query)}

    def records(self, runs: Iterable[str]) -> tuple[str, ...]:
        """The records, as JSON texts, that runs of branches have left."""
        query = {"artifacts": {"type": {"any_": [RECORD]}}, "flow_runs": {"id": {"any_": list(runs)}}}
        with _expected_shape():
            return tuple(str(artifact["data"]) for artifact in self._list("/artifacts/filter", query))

    def log_lines(self, run: str, *, offset: int) -> Iterator[tuple[int, str]]:
        """Level and text of the log lines of a run, from the ``offset``-th one on."""
        logs = {"flow_run_id": {"any_": [run]}, "level": {"ge_": 20}}
        query = {"logs": logs, "sort": "TIMESTAMP_ASC", "offset": offset, "limit": 200}
        with _expected_shape():
            lines = [(int(line["level"]), str(line["message"])) for line in self._list("/logs/filter", query)]
        yield from lines

    def online_workers(self, pool: str) -> tuple[str, ...]:
        """The names of the workers that poll a pool; none where there is no such pool."""
        found = self._list(f"/work_pools/{quote(pool, safe='')}/workers/filter", {}, missing=[])
        with _expected_shape():
            return tuple(str(worker["name"]) for worker in found if worker["status"] == "ONLINE")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Any other call, with the same patience and the same errors; it must be one that can be repeated."""
        return self._call(method, path, body)

    def _list(self, path: str, query: Mapping[str, Any], *, missing: Any = None) -> list[Any]:
        answer = self._call("POST", path, query, missing=missing)
        if not isinstance(answer, list):
            raise PrefectRefused("Prefect's answer to a filter is not a list")
        return answer

    def _call(self, method: str, path: str, body: Any = None, *, missing: Any = None) -> Any:
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return self._once(method, path, body, missing)
            except PrefectUnavailable as error:
                pause = max(_PAUSE_S, error.retry_after_s or 0.0)
                if time.monotonic() >= deadline or time.monotonic() + (error.retry_after_s or 0.0) > deadline:
                    raise
                time.sleep(pause)

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
            raise PrefectUnavailable(f"Prefect answered {status} to {method} {path}: {detail}", retry_after_s=wait)
        raise PrefectRefused(
            f"Prefect answered {status} to {method} {path}: {detail}",
            advice=_MOVED if response.is_redirect else _ADVICE.get(status),
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
            raise PrefectRefused("the credentials for Prefect: no header can carry them", advice=_ADVICE[401]) from None
        return headers


def advice_of(status: int) -> str | None:
    """What helps where Prefect answers with this status."""
    return _ADVICE.get(status)


def _content(response: httpx.Response) -> Any:
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError) as error:
        raise PrefectUnavailable("Prefect's answer is not JSON; something else may listen there") from error


@contextlib.contextmanager
def _expected_shape() -> Iterator[None]:
    """Raise `PrefectUnavailable` where an answer is JSON of another shape than Prefect's."""
    try:
        yield
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise PrefectUnavailable("Prefect's answer has an unknown shape; something else may listen there") from error


def _lacks_csrf_token(response: httpx.Response) -> bool:
    """Whether a server that protects itself from CSRF misses its token, or has forgotten it."""
    return response.status_code == httpx.codes.FORBIDDEN and "CSRF token" in text_of(response)


def _cause(error: httpx.HTTPError) -> str:
    """What the network said, as that a name is not known; what others say could repeat a header, so the kind alone."""
    said = str(error) if isinstance(error, httpx.NetworkError | httpx.ProxyError) else ""
    return said or type(error).__name__


def _id(document: Any) -> str:
    try:
        return str(uuid.UUID(document["id"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PrefectUnavailable("Prefect's answer has no id; something else may listen there") from error
