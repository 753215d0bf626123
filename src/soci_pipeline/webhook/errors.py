"""Errors of an event, of storing it, and of reporting a commit status."""

from typing import TYPE_CHECKING

from soci_pipeline.errors import CredentialsRefused, ExitCode, InvalidInput, SociPipelineError

if TYPE_CHECKING:
    from soci_pipeline.webhook.events import PushEvent


class SignatureRefused(CredentialsRefused):
    """A missing, wrong or expired signature. The response to the sender never says which key was tried."""

    default_advice = "Compare the secrets of the sender and the receiver, and the clocks of both machines."


class EventRefused(InvalidInput):
    """A verified event that is not valid: unknown shape, invalid name, forbidden host, or invalid run parameters."""


class CloneUrlRefused(EventRefused):
    """A verified event whose only invalid field is its clone URL; it is rejected only if a rule matches the event."""

    def __init__(self, reason: str, event: "PushEvent", *, advice: str | None = None) -> None:
        super().__init__(reason, advice=advice)
        self.event = event
        """The event, with a placeholder clone URL that never resolves."""


class OutboxUnavailable(SociPipelineError):
    """The outbox cannot be read or written; an event is not stored, so the sender must deliver it again."""

    exit_code = ExitCode.DISK_FULL
    default_advice = "Check the disk and the permissions of the outbox's folder; the sender should deliver again."

    def __init__(self, reason: str, *, advice: str | None = None) -> None:
        super().__init__(reason, advice=advice, temporary=True)


class ForgeRefused(SociPipelineError):
    """A commit status was rejected, or the forge did not answer. ``retry_after_s`` is from its Retry-After header."""

    exit_code = ExitCode.SOURCE

    def __init__(
        self, reason: str, *, advice: str | None = None, temporary: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason, advice=advice, temporary=temporary)
        self.retry_after_s = retry_after_s
