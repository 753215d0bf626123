"""Poll the outcomes of dispatched runs from Prefect, count them, and report them to the forge.

A final state may change: a run that was marked as crashed while still alive completes, or a failed one is retried. So
finished runs are polled for some more time, a few in each round, and a changed outcome is reported again.
"""

import logging
from collections.abc import Mapping

from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectRefused, PrefectUnavailable
from soci_pipeline.retry import delay_s
from soci_pipeline.webhook.errors import ForgeRefused
from soci_pipeline.webhook.forge import Forge
from soci_pipeline.webhook.json_logs import log
from soci_pipeline.webhook.metrics import Metrics
from soci_pipeline.webhook.outbox import FINAL_OUTCOMES, Outbox, OutboxRun

_MAX_REPORTS = 12
_ASKED_AT_ONCE = 200  # the maximum page size of a Prefect filter
_ENDED_AT_ONCE = 50
_ENDED_EVERY_ROUNDS = 10  # at least this often, even if unfinished runs fill every round
_MOST_RETRY_AFTER_S = 3600.0


class OutcomeWatcher:
    """Polls the states of dispatched runs and reports changes; not thread-safe, one thread calls `step`."""

    def __init__(
        self,
        outbox: Outbox,
        prefect: PrefectApi,
        metrics: Metrics,
        *,
        forges: Mapping[str, Forge],
        every_s: float,
        ui_url: str | None = None,
        watch_ended_for_s: float = 7 * 24 * 3600,
    ) -> None:
        self._outbox = outbox
        self._prefect = prefect
        self._metrics = metrics
        self._forges = forges
        self._every_s = every_s
        self._ui_url = ui_url.rstrip("/") if ui_url else None
        self._watch_ended_for_s = watch_ended_for_s
        self._last_asked = 0
        self._last_ended = 0
        self._rounds_without_ended = 0

    def step(self) -> float:
        """Run one round; return the seconds until the next one."""
        self._poll()
        for run in self._outbox.to_report():
            self._report(run)
        return self._every_s

    def _poll(self) -> None:
        runs = [run for run in self._next_runs() if run.flow_run_id]
        if not runs:
            return
        try:
            states = self._prefect.states([run.flow_run_id for run in runs if run.flow_run_id])
        except (PrefectUnavailable, PrefectRefused) as error:
            log("cannot read the outcomes of runs: " + error.reason, level=logging.WARNING)
            return
        for run in runs:
            outcome = states.get(run.flow_run_id or "", "UNKNOWN")
            if outcome == run.outcome:
                continue
            self._outbox.set_outcome(run, outcome)
            if outcome in FINAL_OUTCOMES:
                self._metrics.count("soci_webhook_outcomes_total", rule=run.rule, outcome=outcome)
                log("run ended", key=run.key, rule=run.rule, flow_run=run.flow_run_id, outcome=outcome)

    def _next_runs(self) -> list[OutboxRun]:
        """Return the runs to poll in this round: a page of unfinished runs, then finished ones up to the limit."""
        self._rounds_without_ended += 1
        page = [] if self._rounds_without_ended >= _ENDED_EVERY_ROUNDS else self._next_page()
        room = min(_ENDED_AT_ONCE, _ASKED_AT_ONCE - len(page))
        if room > 0:
            page += self._next_ended(room)
            self._rounds_without_ended = 0
        return page

    def _next_ended(self, limit: int) -> list[OutboxRun]:
        within = self._watch_ended_for_s
        page = self._outbox.ended(limit, after=self._last_ended, within_s=within) or self._outbox.ended(
            limit, within_s=within
        )
        self._last_ended = page[-1].id if len(page) == limit else 0
        return page

    def _next_page(self) -> list[OutboxRun]:
        """Return the next page of unfinished runs in turn, so that long-running ones do not keep later ones out."""
        page = self._outbox.unfinished(_ASKED_AT_ONCE, after=self._last_asked) or self._outbox.unfinished(
            _ASKED_AT_ONCE
        )
        self._last_asked = page[-1].id if len(page) == _ASKED_AT_ONCE else 0
        return page

    def _report(self, run: OutboxRun) -> None:
        outcome = run.outcome or "SCHEDULED"
        forge = self._forges.get(run.source)
        if forge is None or run.target is None:
            self._outbox.reported(run, outcome)
            return
        link = f"{self._ui_url}/runs/flow-run/{run.flow_run_id}" if self._ui_url and run.flow_run_id else None
        try:
            forge.report(run.target, outcome, rule=run.rule, link=link)
        except ForgeRefused as error:
            again = error.temporary and run.report_attempts < _MAX_REPORTS
            log(
                "cannot write the commit status: " + error.reason, level=logging.WARNING, source=run.source, again=again
            )
            self._metrics.count("soci_webhook_reports_total", source=run.source, result="failed")
            if again:
                wait = delay_s(run.report_attempts + 1, first_s=2.0, most_s=300.0)
                self._outbox.postpone_report(run, max(wait, min(error.retry_after_s or 0.0, _MOST_RETRY_AFTER_S)))
            else:
                self._outbox.reported(run, outcome)
            return
        self._outbox.reported(run, outcome)
        self._metrics.count("soci_webhook_reports_total", source=run.source, result="written")
