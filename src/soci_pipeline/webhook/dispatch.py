"""From the outbox to Prefect, one run after another; what fails for a while is tried again until it is too old.

While Prefect is down nothing is lost and nothing doubled: a run stays pending, and its idempotency key makes handing it
over again harmless, also where the answer to the first try got lost.
"""

import logging
import time
from collections.abc import Callable

from soci_pipeline.webhook.backoff import delay_s
from soci_pipeline.webhook.errors import PrefectRefused, PrefectUnavailable
from soci_pipeline.webhook.json_logs import log
from soci_pipeline.webhook.metrics import Metrics
from soci_pipeline.webhook.outbox import Outbox, OutboxRun
from soci_pipeline.webhook.prefect_api import PrefectApi

_IDLE_S = 5.0
_REFUSED_FIRST_S = 5.0
_REFUSED_MOST_S = 300.0


class Dispatcher:
    """Hands over the runs that are due; not thread-safe, one thread calls `step`."""

    def __init__(
        self,
        outbox: Outbox,
        prefect: PrefectApi,
        metrics: Metrics,
        *,
        give_up_after_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._prefect = prefect
        self._metrics = metrics
        self._give_up_after_s = give_up_after_s
        self._clock = clock
        self._down = 0

    def step(self) -> float:
        """Hand over what is due; returns the seconds to wait before the next call."""
        while (run := self._outbox.claim()) is not None:
            if not self._hand_over(run):
                # Prefect is down: the others would only wait for the same time-out.
                return delay_s(self._down)
        return _IDLE_S if self._down == 0 else delay_s(self._down)

    def _hand_over(self, run: OutboxRun) -> bool:
        try:
            flow_run_id = self._prefect.create_run(
                run.deployment, run.parameters, key=run.key, tags=[f"webhook:{run.source}", f"rule:{run.rule}"]
            )
        except PrefectUnavailable as error:
            self._down += 1
            self._again(run, error.reason, delay_s(self._down), "unavailable")
            return False
        except PrefectRefused as error:
            self._down = 0
            if error.temporary:
                wait = delay_s(run.attempts + 1, first_s=_REFUSED_FIRST_S, most_s=_REFUSED_MOST_S)
                self._again(run, error.reason, wait, "refused")
            else:
                self._give_up(run, error.reason)
            return True
        self._down = 0
        self._outbox.dispatched(run, flow_run_id)
        self._metrics.count("soci_webhook_dispatches_total", result="dispatched")
        log("run dispatched", key=run.key, rule=run.rule, deployment=run.deployment, flow_run=flow_run_id)
        return True

    def _again(self, run: OutboxRun, reason: str, wait_s: float, result: str) -> None:
        if self._clock() - run.received > self._give_up_after_s:
            self._give_up(run, f"{reason} (tried {run.attempts + 1} times)")
            return
        self._outbox.postpone(run, wait_s, reason)
        self._metrics.count("soci_webhook_dispatches_total", result=result)
        log(
            "run postponed: " + reason,
            level=logging.WARNING,
            key=run.key,
            rule=run.rule,
            attempt=run.attempts + 1,
            wait_s=round(wait_s, 2),
        )

    def _give_up(self, run: OutboxRun, reason: str) -> None:
        self._outbox.fail(run, reason)
        self._metrics.count("soci_webhook_dispatches_total", result="failed")
        log("run given up: " + reason, level=logging.ERROR, key=run.key, rule=run.rule, deployment=run.deployment)
