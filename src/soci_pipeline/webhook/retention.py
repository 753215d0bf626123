"""Delete runs and event hashes from the outbox after their retention period."""

from soci_pipeline.webhook.configuration import Configuration
from soci_pipeline.webhook.json_logs import log
from soci_pipeline.webhook.outbox import Outbox

_DAY_S = 24 * 3600.0
_EVERY_S = 3600.0


class Cleaner:
    """Deletes once an hour, a batch of rows per step; not thread-safe, one thread calls `step`."""

    def __init__(self, outbox: Outbox, configuration: Configuration) -> None:
        self._outbox = outbox
        kept = configuration.retention
        self._runs_s = max(kept.runs_days, configuration.prefect.watch_ended_days) * _DAY_S
        self._hashes_s = None if kept.hashes_days is None else max(kept.hashes_days * _DAY_S, self._runs_s)
        self._due = outbox.now()

    def step(self) -> None:
        """Delete a batch if due; the next steps delete more until nothing is left."""
        if self._outbox.now() < self._due:
            return
        runs = self._outbox.delete_finished(self._runs_s)
        hashes = 0 if self._hashes_s is None else self._outbox.delete_hashes(self._hashes_s)
        if runs or hashes:
            log("deleted expired runs and events", runs=runs, hashes=hashes)
            return
        self._due = self._outbox.now() + _EVERY_S
