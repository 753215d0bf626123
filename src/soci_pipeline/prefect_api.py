"""The calls of Prefect's REST API that this library makes, over plain HTTP: Prefect itself is not imported.

The receiver hands runs over and looks at what becomes of them, the local stack starts and follows publications. Every
call can be repeated; an idempotency key makes that true of creating a run, since the server answers with the run that
it made the first time.
"""

import base64
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from soci_pipeline.errors import TEMPORARY_STATUSES, InvalidInput, StackError
from soci_pipeline.registry.reference import is_loopback

RECORD = "soci-branch-record"
"""The type of the artifact that carries a branch's record back."""

FINAL_STATES = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
"""The types of state that a flow run does not leave by itself."""

_PAUSE_S = 1.0
_ADVICE = {
    401: "Check the credentials for Prefect: those of the receiver, PREFECT_API_AUTH_STRING or PREFECT_API_KEY.",
    403: "The credentials need the right to create and read runs.",
    404: "Deploy it: `prefect --no-prompt deploy --all` from the project's folder.",
}
_NO_POOL = "Check its name; `soci-pipeline setup` makes the pools of the project."
_LIKE = "Set PREFECT_API_URL as in http://127.0.0.1:4200/api, or unset it."
_MOVED = "Give Prefect's own address, with /api at its end: no redirect is followed, since credentials would go along."

Authorization = Callable[[], Mapping[str, str]]
"""The headers that authenticate a call; asked for each time, so that a rotated secret counts at once. May raise
`InvalidInput` where there is no secret just now."""


class PrefectUnavailable(StackError):
    """Prefect does not answer, or answers that it cannot just now (``503 database is locked`` among others)."""

    default_advice = "Start the Prefect server, or wait: the same call may succeed later."

    def __init__(self, reason: str) -> None:
        super().__init__(reason, temporary=True)


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


@dataclass(frozen=True, slots=True)
class WorkPool:
    """What a work pool lets through: nothing while it is paused, and no more runs at once than its limit."""

    paused: bool
    limit: int | None


def login_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The headers of the login that Prefect itself would take from these variables; none where there is none."""
    key, auth = environment.get("PREFECT_API_KEY"), environment.get("PREFECT_API_AUTH_STRING")
    return bearer(key) if key else basic(auth.encode()) if auth else {}


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


def _nobody() -> Mapping[str, str]:
    return {}


class PrefectApi:
    """A client of one server or Cloud workspace, ``api_url`` with ``/api`` at its end; thread-safe, a context manager.

    A call that fails for a while is made again for ``patience_s`` seconds, and then raises `PrefectUnavailable`.
    Everything else that is no success raises `PrefectRefused`. Raises `InvalidInput` for what is no address.
    """

    def __init__(
        self, api_url: str, *, authorization: Authorization = _nobody, timeout_s: float = 30, patience_s: float = 120
    ) -> None:
        self._authorization = authorization
        self._patience_s = patience_s
        url = checked_url(api_url)
        self._client = httpx.Client(
            base_url=url,
            timeout=timeout_s,
            headers={"User-Agent": "soci-pipeline", "Accept": "application/json"},
            follow_redirects=False,
            # A proxy of the environment cannot reach a server on this machine's loopback.
            trust_env=not is_loopback(urlsplit(url).netloc.rpartition("@")[2]),
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """A client of the server that ``PREFECT_API_URL`` names, with the login that Prefect itself would take.

        Raises `InvalidInput` where it names none, or what cannot be one.
        """
        given = os.environ if environment is None else environment
        url = given.get("PREFECT_API_URL", "")
        if not url:
            raise no_url()
        return cls(url, authorization=lambda: login_of(given))

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
        state = answer.get("state") or {}
        return RunState(kind=str(answer.get("state_type")), message=str(state.get("message") or ""))

    def states(self, runs: Sequence[str]) -> dict[str, str]:
        """The type of each run's state (``COMPLETED``…); a run that was deleted is not in the answer."""
        if not runs:
            return {}
        found = self._list("/flow_runs/filter", {"flow_runs": {"id": {"any_": list(runs)}}, "limit": len(runs)})
        return {_id(each): str(each.get("state_type") or "SCHEDULED") for each in found}

    def cancel(self, run: str) -> None:
        """Ask for a flow run to be cancelled."""
        self._call("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})

    def reschedule(self, run: str, message: str) -> None:
        """Put a run that nothing executes any more back into its queue, as Prefect does for a machine that must go."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": message}
        self._call("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})

    def end_as_cancelled(self, run: str, message: str) -> None:
        """Have a run that nothing executes any more, and that was to be cancelled, count as cancelled."""
        state = {"type": "CANCELLED", "name": "Cancelled", "message": message}
        self._call("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})

    def count_runs(self, pool: str, kinds: Sequence[str], *, due: datetime) -> int:
        """How many runs of a work pool are in a state of these types, and were to start by ``due``."""
        runs = {"state": {"type": {"any_": list(kinds)}}, "expected_start_time": {"before_": due.isoformat()}}
        answer = self._call("POST", "/flow_runs/count", {"flow_runs": runs, "work_pools": {"name": {"any_": [pool]}}})
        if not isinstance(answer, int):
            raise PrefectRefused("Prefect's answer to a count is not a number")
        return answer

    def work_pool(self, pool: str) -> WorkPool:
        """What a work pool lets through; raises `PrefectRefused` where there is none."""
        found = self._call("GET", f"/work_pools/{quote(pool, safe='')}", missing={})
        if not found:
            raise PrefectRefused(f"Prefect has no work pool {pool!r}", advice=_NO_POOL, temporary=True)
        return WorkPool(paused=bool(found.get("is_paused")), limit=found.get("concurrency_limit"))

    def children(self, run: str) -> dict[str, str]:
        """The flow runs that a run has started as its own: names by id."""
        query = {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}}
        return {_id(child): str(child["name"]) for child in self._list("/flow_runs/filter", query)}

    def records(self, runs: Iterable[str]) -> tuple[str, ...]:
        """The records, as JSON texts, that runs of branches have left."""
        query = {"artifacts": {"type": {"any_": [RECORD]}}, "flow_runs": {"id": {"any_": list(runs)}}}
        return tuple(str(artifact["data"]) for artifact in self._list("/artifacts/filter", query))

    def log_lines(self, run: str, *, offset: int) -> Iterator[tuple[int, str]]:
        """Level and text of the log lines of a run, from the ``offset``-th one on."""
        logs = {"flow_run_id": {"any_": [run]}, "level": {"ge_": 20}}
        query = {"logs": logs, "sort": "TIMESTAMP_ASC", "offset": offset, "limit": 200}
        for line in self._list("/logs/filter", query):
            yield int(line["level"]), str(line["message"])

    def online_workers(self, pool: str) -> tuple[str, ...]:
        """The names of the workers that poll a pool; none where there is no such pool."""
        found = self._list(f"/work_pools/{quote(pool, safe='')}/workers/filter", {}, missing=[])
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
            except PrefectUnavailable:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE_S)

    def _once(self, method: str, path: str, body: Any, missing: Any) -> Any:
        headers = self._credentials()
        try:
            response = self._client.request(method, path, json=body, headers=headers)
            status = response.status_code
            if status == httpx.codes.NOT_FOUND and missing is not None:
                return missing
            if response.is_success:
                return response.json()
        except httpx.TransportError as error:
            raise PrefectUnavailable(f"Prefect does not answer ({type(error).__name__})") from error
        except ValueError as error:
            raise PrefectUnavailable("Prefect's answer is not JSON; something else may listen there") from error
        detail = response.text[:300].replace("\n", " ")
        if status in TEMPORARY_STATUSES:
            raise PrefectUnavailable(f"Prefect answered {status} to {method} {path}: {detail}")
        raise PrefectRefused(
            f"Prefect answered {status} to {method} {path}: {detail}",
            advice=_MOVED if response.is_redirect else _ADVICE.get(status),
            temporary=response.is_redirect or status in _ADVICE,
            status=status,
        )

    def _credentials(self) -> dict[str, str]:
        try:
            return dict(self._authorization())
        except InvalidInput as error:
            raise PrefectRefused(
                f"the credentials for Prefect: {error.reason}", advice=error.advice, temporary=True
            ) from error


def _id(document: Any) -> str:
    try:
        return str(uuid.UUID(document["id"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PrefectUnavailable("Prefect's answer has no id; something else may listen there") from error
