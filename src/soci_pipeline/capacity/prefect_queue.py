"""What waits and what runs in a Prefect work pool."""

from dataclasses import dataclass
from datetime import UTC, datetime

from soci_pipeline.capacity.policy import Demand
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
