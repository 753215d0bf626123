"""The outbox: an event is on disk before its sender is thanked, and stays until Prefect has taken its runs.

SQLite in WAL mode with full synchronisation. One row an event, unique by the hash of what was signed, and one row a run
that it starts. An event and its runs are one transaction. `delete_finished` removes what ended long ago; a hash stays,
so a replay is recognised at any time, unless `delete_hashes` is called.

Waits and ages are measured in *running time*: the seconds during which a receiver had the file open, kept in the file.
The clock of the machine may jump either way and changes none of them.
All methods may be called from any thread; each raises `OutboxUnavailable` where the disk or a lock does not let it.
"""

from soci_pipeline.webhook.outbox.dispatching import DispatchQueue
from soci_pipeline.webhook.outbox.events import EventStorage
from soci_pipeline.webhook.outbox.retention import Deletion
from soci_pipeline.webhook.outbox.rows import FINAL_OUTCOMES, DispatchState, OutboxRun, StatusTarget, Stored
from soci_pipeline.webhook.outbox.statuses import Statuses

__all__ = ["FINAL_OUTCOMES", "DispatchState", "Outbox", "OutboxRun", "StatusTarget", "Stored"]


class Outbox(EventStorage, DispatchQueue, Statuses, Deletion):
    """The whole outbox; each of its bases is one use of the same file."""
