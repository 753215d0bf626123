"""The outbox: an event is on disk before its sender gets a 202, and is kept until Prefect has accepted its runs.

It is a SQLite file in WAL mode with full synchronisation: one row per event, unique by the hash of what was signed, and
one row per run that it starts, both inserted in one transaction. `delete_finished` deletes runs that ended long ago;
their event's hash is kept to detect replays, unless `delete_hashes` is called.

Waits and ages are measured in *running time*: the seconds during which a receiver had the file open, stored in the
file. Changes of the system clock do not affect it.
All methods are thread-safe; each raises `OutboxUnavailable` if the disk is full or broken, or the file is locked.
"""

from soci_pipeline.webhook.outbox.dispatching import DispatchQueue
from soci_pipeline.webhook.outbox.events import EventStorage
from soci_pipeline.webhook.outbox.retention import Deletion
from soci_pipeline.webhook.outbox.rows import FINAL_OUTCOMES, DispatchState, OutboxRun, StatusTarget, Stored
from soci_pipeline.webhook.outbox.statuses import Statuses

__all__ = ["FINAL_OUTCOMES", "DispatchState", "Outbox", "OutboxRun", "StatusTarget", "Stored"]


class Outbox(EventStorage, DispatchQueue, Statuses, Deletion):
    """The whole outbox; each base class is one use of the same file."""
