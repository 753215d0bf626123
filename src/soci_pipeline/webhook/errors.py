"""What can be wrong with an event, with storing it, and with handing it on."""

from typing import TYPE_CHECKING

from soci_pipeline.errors import CredentialsRefused, ExitCode, InvalidInput, SociPipelineError

if TYPE_CHECKING:
    from soci_pipeline.webhook.events import PushEvent


class SignatureRefused(CredentialsRefused):
    """No signature, a wrong one, or one that is too old. The answer to the sender never says which key was tried."""

    default_advice = "Compare the secret at the sender with the receiver's, and the clocks of both machines."


class EventRefused(InvalidInput):
    """A signed event of an unknown shape, or with a name in it that no sound repository has."""


class CloneUrlRefused(EventRefused):
    """A signed event whose names are valid and whose clone URL is not; that matters where a rule names the event."""

    def __init__(self, reason: str, event: "PushEvent", *, advice: str | None = None) -> None:
        super().__init__(reason, advice=advice)
        self.event = event
        """The event with a clone URL that leads nowhere."""


class OutboxUnavailable(SociPipelineError):
    """The event could not be stored, so the sender must keep it."""

    exit_code = ExitCode.DISK_FULL
    default_advice = "Look at the disk and the permissions of the outbox's folder; the sender should deliver again."

    def __init__(self, reason: str, *, advice: str | None = None) -> None:
        super().__init__(reason, advice=advice, temporary=True)


class ForgeRefused(SociPipelineError):
    """The forge did not take a commit status. ``retry_after_s`` is what it says about the next attempt."""

    exit_code = ExitCode.SOURCE

    def __init__(
        self, reason: str, *, advice: str | None = None, temporary: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason, advice=advice, temporary=temporary)
        self.retry_after_s = retry_after_s
