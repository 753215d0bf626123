"""What waits and what runs in a Prefect work pool, and the connection that the environment names."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from soci_pipeline.capacity.policy import Demand
from soci_pipeline.errors import InvalidInput
from soci_pipeline.prefect_api import PrefectApi

_WAITING = ("SCHEDULED",)
_RUNNING = ("PENDING", "RUNNING", "CANCELLING")


@dataclass(frozen=True, slots=True)
class PrefectQueue:
    """The work pools of one Prefect server."""

    api: PrefectApi

    def demand(self, pool: str) -> Demand:
        """What a pool's workers would take now, and what they have taken; runs that are not due yet do not count."""
        rule = self.api.work_pool(pool)
        now = datetime.now(UTC)
        running = self.api.count_runs(pool, _RUNNING, due=now)
        waiting = 0 if rule.paused else self.api.count_runs(pool, _WAITING, due=now)
        if rule.limit is not None:
            waiting = min(waiting, max(0, rule.limit - running))
        return Demand(waiting=waiting, running=running)


def from_environment(environment: Mapping[str, str] | None = None) -> PrefectApi:
    """A client of the server that ``PREFECT_API_URL`` names, with the credentials that Prefect itself would take."""
    given = os.environ if environment is None else environment
    url = given.get("PREFECT_API_URL", "")
    if not url:
        raise InvalidInput("PREFECT_API_URL is not set", advice="Set it to the address of the Prefect API, with /api.")
    return PrefectApi(url, authorization=lambda: _authorization(given))


def _authorization(environment: Mapping[str, str]) -> Mapping[str, str]:
    key = environment.get("PREFECT_API_KEY")
    if key:
        return {"Authorization": f"Bearer {key}"}
    auth = environment.get("PREFECT_API_AUTH_STRING")
    if auth:
        return {"Authorization": "Basic " + base64.b64encode(auth.encode()).decode()}
    return {}
