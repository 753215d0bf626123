"""What became of the runs: asked of Prefect by their ids, counted, and told to the forge."""

import logging
from collections.abc import Mapping

from soci_pipeline.errors import InvalidInput
from soci_pipeline.prefect_api import PrefectApi, PrefectRefused, PrefectUnavailable
from soci_pipeline.webhook.backoff import delay_s
from soci_pipeline.webhook.errors import ForgeRefused
from soci_pipeline.webhook.forge import Forge
from soci_pipeline.webhook.json_logs import log
from soci_pipeline.webhook.metrics import Metrics
from soci_pipeline.webhook.outbox import FINAL_OUTCOMES, Outbox, OutboxRun

_MAX_REPORTS = 12
_MAX_LOOKS = 200
"""So many runs are asked for at once; the next round goes on behind them."""


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
    ) -> None:
        self._outbox = outbox
        self._prefect = prefect
        self._metrics = metrics
        self._forges = forges
        self._every_s = every_s
        self._after = 0
        self._ui_url = ui_url.rstrip("/") if ui_url else None

    def step(self) -> float:
        """One round; returns the seconds until the next."""
        self._look()
        for run in self._outbox.to_report():
            self._report(run)
        return self._every_s

    def _look(self) -> None:
        page = self._outbox.unfinished(after=self._after, limit=_MAX_LOOKS)
        runs = [run for run in page if run.flow_run_id]
        if not runs:
            self._after = 0
            return
        try:
            states = self._prefect.states([run.flow_run_id for run in runs if run.flow_run_id])
        except (PrefectUnavailable, PrefectRefused) as error:
            log("outcomes are not known just now: " + error.reason, level=logging.WARNING)
            return
        self._after = page[-1].id if len(page) == _MAX_LOOKS else 0
        for run in runs:
            outcome = states.get(run.flow_run_id or "", "UNKNOWN")
            if outcome == run.outcome:
                continue
            self._outbox.set_outcome(run, outcome)
            if outcome in FINAL_OUTCOMES:
                self._metrics.count("soci_webhook_outcomes_total", rule=run.rule, outcome=outcome)
                log("run ended", key=run.key, rule=run.rule, flow_run=run.flow_run_id, outcome=outcome)

    def _report(self, run: OutboxRun) -> None:
        outcome = run.outcome or "SCHEDULED"
        forge = self._forges.get(run.source)
        if forge is None or run.target is None:
            self._outbox.reported(run, outcome)
            return
        link = f"{self._ui_url}/runs/flow-run/{run.flow_run_id}" if self._ui_url and run.flow_run_id else None
        try:
            forge.report(run.target, outcome, rule=run.rule, link=link)
        except (ForgeRefused, InvalidInput) as error:
            # A secret that is missing just now is one that is being replaced.
            temporary = error.temporary or isinstance(error, InvalidInput)
            again = temporary and run.report_attempts < _MAX_REPORTS
            log("commit status not written: " + error.reason, level=logging.WARNING, source=run.source, again=again)
            self._metrics.count("soci_webhook_reports_total", source=run.source, result="failed")
            if again:
                self._outbox.postpone_report(run, delay_s(run.report_attempts + 1, first_s=2.0, most_s=300.0))
            else:
                self._outbox.reported(run, outcome)
            return
        self._outbox.reported(run, outcome)
        self._metrics.count("soci_webhook_reports_total", source=run.source, result="written")
