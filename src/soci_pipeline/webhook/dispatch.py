"""Dispatch runs from the outbox to Prefect one at a time, and retry failed ones until they are too old.

While Prefect is down nothing is lost or duplicated: a run stays pending, and its idempotency key makes a retry harmless
even if only the response to the first attempt was lost. An outage (no response, 5xx, 429) pauses all runs, for as long
as Retry-After says. A rejection (401, 403, a missing deployment) affects one run: it is logged as an error and retried
with increasing delays without blocking the others. It does not fail at once, since a revoked permission can be granted
again and no forge delivers the event again.
"""

import logging
import time
from collections.abc import Callable

from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectRefused, PrefectUnavailable
from soci_pipeline.publish.run_names import waiting_name
from soci_pipeline.retry import delay_s
from soci_pipeline.webhook.json_logs import log
from soci_pipeline.webhook.metrics import Metrics
from soci_pipeline.webhook.outbox import Outbox, OutboxRun

_IDLE_S = 5.0
_CUT_SHORT_S = 30.0
_REFUSED_FIRST_S = 5.0
_REFUSED_MOST_S = 300.0
_RETRY_AFTER_MOST_S = 3600.0


class Dispatcher:
    """Dispatches the runs that are due; not thread-safe, one thread calls `step`. ``clock`` is in monotonic seconds."""

    def __init__(
        self,
        outbox: Outbox,
        prefect: PrefectApi,
        metrics: Metrics,
        *,
        give_up_after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox = outbox
        self._prefect = prefect
        self._metrics = metrics
        self._give_up_after_s = give_up_after_s
        self._clock = clock
        self._down = 0
        self._paused_until = 0.0
        self._in_hand = False

    def step(self) -> float:
        """Dispatch all due runs; return the seconds to wait before the next call."""
        if self._in_hand:
            # The last step was interrupted: postpone its run behind the others, in case that run is the cause.
            self._outbox.reclaim(_CUT_SHORT_S)
            self._in_hand = False
        # A new event wakes the thread, but must not shorten the pause for a server that is down.
        while (pause := self._paused_until - self._clock()) <= 0:
            run = self._outbox.claim()
            if run is None:
                return _IDLE_S
            self._in_hand = True
            self._dispatch_run(run)
            self._in_hand = False
        return pause

    def _dispatch_run(self, run: OutboxRun) -> None:
        try:
            flow_run_id = self._prefect.create_run(
                run.deployment,
                run.parameters,
                key=run.key,
                tags=[f"webhook:{run.source}", f"rule:{run.rule}"],
                naming=waiting_name,
            )
        except PrefectUnavailable as error:
            # The other runs would fail the same way: pause all of them, and retry the oldest first.
            self._down += 1
            wait = max(delay_s(self._down), min(error.retry_after or 0.0, _RETRY_AFTER_MOST_S))
            self._paused_until = self._clock() + wait
            self._again(run, error.reason, 0.0, "unavailable")
            return
        except PrefectRefused as error:
            self._down = 0
            if error.temporary:
                wait = delay_s(run.attempts + 1, first_s=_REFUSED_FIRST_S, most_s=_REFUSED_MOST_S)
                self._again(run, error.reason, wait, "refused", level=logging.ERROR)
            else:
                self._give_up(run, error.reason)
            return
        self._down = 0
        self._outbox.dispatched(run, flow_run_id)
        self._metrics.count("soci_webhook_dispatches_total", result="dispatched")
        log("run dispatched", key=run.key, rule=run.rule, deployment=run.deployment, flow_run=flow_run_id)

    def _again(self, run: OutboxRun, reason: str, wait_s: float, result: str, *, level: int = logging.WARNING) -> None:
        if self._outbox.age_s(run) > self._give_up_after_s:
            self._give_up(run, f"{reason} (tried {run.attempts + 1} times)")
            return
        self._outbox.postpone(run, wait_s, reason)
        self._metrics.count("soci_webhook_dispatches_total", result=result)
        log(
            "run postponed: " + reason,
            level=level,
            key=run.key,
            rule=run.rule,
            attempt=run.attempts + 1,
        )

    def _give_up(self, run: OutboxRun, reason: str) -> None:
        self._outbox.fail(run, reason)
        self._metrics.count("soci_webhook_dispatches_total", result="failed")
        log("gave up on a run: " + reason, level=logging.ERROR, key=run.key, rule=run.rule, deployment=run.deployment)
