"""A clock controlled by tests, and events and runs for an outbox."""

from soci_pipeline.webhook.outbox import Outbox, StatusTarget
from soci_pipeline.webhook.rules import PlannedRun


class Clock:
    """Monotonic time in seconds, which only changes when a test sets it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def planned(rule: str = "shop", subject: str | None = "shop team/shop refs/heads/main") -> PlannedRun:
    """Return a run that an event starts."""
    return PlannedRun(rule, "publish-image/publish", {"image": "r.example/a", "tags": ["é"]}, subject)


def digest(number: int) -> bytes:
    """Return the hash of an event."""
    return number.to_bytes(32, "big")


def finished(outbox: Outbox, number: int, outcome: str = "COMPLETED", *, target: StatusTarget | None = None) -> None:
    """Store an event whose only run has been created in Prefect, with its outcome."""
    outbox.store(digest(number), "s", "x", [planned(subject=None)], target=target)
    run = outbox.claim()
    assert run is not None
    outbox.dispatched(run, f"id{number}")
    outbox.set_outcome(run, outcome)
