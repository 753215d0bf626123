"""The four calls of Prefect's REST API that the receiver makes, over plain HTTP: Prefect itself is not imported.

An idempotency key makes creating a run repeatable: the server answers with the run that it made the first time.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx

from soci_pipeline.webhook.configuration import PrefectSettings
from soci_pipeline.webhook.errors import PrefectRefused, PrefectUnavailable

_TRY_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})


class PrefectApi:
    """A client of one server or Cloud workspace; thread-safe, to be closed."""

    def __init__(self, settings: PrefectSettings) -> None:
        self._settings = settings
        self._client = httpx.Client(
            base_url=str(settings.api_url).rstrip("/"),
            timeout=settings.timeout_s,
            headers={"User-Agent": "soci-pipeline-webhook", "Accept": "application/json"},
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def create_run(self, deployment: str, parameters: Mapping[str, Any], *, key: str, tags: Sequence[str] = ()) -> str:
        """Make a run of ``flow/deployment``; returns its id, the same one for the same key.

        Raises `PrefectUnavailable` where a later try may succeed by itself, `PrefectRefused` otherwise (``temporary``
        where the deployment or the credentials are wrong, which somebody may put right).
        """
        flow, _, name = deployment.partition("/")
        found = self._call("GET", f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}")
        body = {"parameters": dict(parameters), "idempotency_key": key, "tags": list(tags)}
        made = self._call("POST", f"/deployments/{_uuid(found)}/create_flow_run", json=body)
        return _uuid(made)

    def states(self, flow_run_ids: Sequence[str]) -> dict[str, str]:
        """The type of each run's state (``COMPLETED``…); a run that was deleted is not in the answer."""
        if not flow_run_ids:
            return {}
        body = {"flow_runs": {"id": {"any_": list(flow_run_ids)}}, "limit": len(flow_run_ids)}
        answer = self._call("POST", "/flow_runs/filter", json=body)
        if not isinstance(answer, list):
            raise PrefectRefused("Prefect's answer to a filter is not a list")
        return {_uuid(each): str(each.get("state_type") or "SCHEDULED") for each in answer}

    def _call(self, method: str, path: str, *, json: Any = None) -> Any:
        try:
            response = self._client.request(method, path, json=json, headers=self._authorization())
            status = response.status_code
            if status < 300:
                return response.json()
        except httpx.TransportError as error:
            raise PrefectUnavailable(f"Prefect does not answer ({type(error).__name__})") from error
        except ValueError as error:
            raise PrefectUnavailable("Prefect's answer is not JSON; something else may listen there") from error
        detail = response.text[:300].replace("\n", " ")
        if status in _TRY_LATER:
            raise PrefectUnavailable(f"Prefect answered {status}: {detail}")
        raise PrefectRefused(
            f"Prefect answered {status} to {method} {path}: {detail}",
            advice=_ADVICE.get(status),
            temporary=status in _ADVICE,
        )

    def _authorization(self) -> dict[str, str]:
        if self._settings.api_key is not None:
            return {"Authorization": f"Bearer {self._settings.api_key.read().decode()}"}
        if self._settings.auth_string is not None:
            return {"Authorization": "Basic " + base64.b64encode(self._settings.auth_string.read()).decode()}
        return {}


_ADVICE = {
    401: "Check prefect.auth_string or prefect.api_key of the receiver.",
    403: "The credentials of the receiver need the right to create runs.",
    404: "Deploy it: `prefect --no-prompt deploy --all` from the project's folder.",
}


def _uuid(document: Any) -> str:
    try:
        return str(UUID(document["id"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PrefectUnavailable("Prefect's answer has no id; something else may listen there") from error
