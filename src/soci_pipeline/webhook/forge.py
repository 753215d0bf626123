"""Report the outcome of a push as a commit status at the forge."""

from collections.abc import Mapping
from types import TracebackType

import httpx

from soci_pipeline.errors import TEMPORARY_STATUSES, InvalidInput
from soci_pipeline.http_client import BadRedirect, HttpClient, text_of
from soci_pipeline.retry import retry_after_s
from soci_pipeline.webhook.errors import ForgeRefused
from soci_pipeline.webhook.outbox import StatusTarget
from soci_pipeline.webhook.sources.source import CommitStatus, StatusRequest, StatusSettings, StatusSource

_TRY_LATER = TEMPORARY_STATUSES | {403}  # GitHub answers 403 when its rate limit is exceeded
_TIMEOUT_S = 15.0


_TEXTS: Mapping[str, str] = {
    "SCHEDULED": "publication scheduled",
    "PENDING": "publication starting",
    "RUNNING": "publishing",
    "PAUSED": "publication paused",
    "CANCELLING": "publication being cancelled",
    "COMPLETED": "image published and verified",
    "FAILED": "publication failed",
    "CRASHED": "publication crashed",
    "CANCELLED": "publication cancelled",
    "NOT_STARTED": "publication could not be started",
}
_TEXT_OF_ANY_OTHER = "the publication's flow run was deleted"


class Forge:
    """Writes commit statuses for one source; the token is sent to the configured API URL only."""

    def __init__(self, source: StatusSource, status: StatusSettings) -> None:
        self._source = source
        self._status = status
        self._client = HttpClient(base_url=str(status.api_url).rstrip("/"), timeout=_TIMEOUT_S)

    def __enter__(self) -> "Forge":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def report(self, target: StatusTarget, outcome: str, *, rule: str, link: str | None) -> None:
        """Set the status of a commit; ``outcome`` is the state type of the run.

        Raises `ForgeRefused`, ``temporary`` if a retry may succeed.
        """
        status = CommitStatus(
            project=target.project,
            commit=target.commit,
            outcome=outcome,
            name=f"{self._status.context}/{rule}",
            text=_TEXTS.get(outcome, _TEXT_OF_ANY_OTHER),
            link=link,
        )
        self._post(self._source.status_request(status, self._token()))

    def _token(self) -> str:
        try:
            return self._status.token.read_text()
        except InvalidInput as error:
            # During a rotation the old file may be removed before the new one exists.
            raise ForgeRefused(
                f"the token of the forge: {error.reason}", advice=error.advice, temporary=True
            ) from error

    def _post(self, request: StatusRequest) -> None:
        try:
            response = self._client.post(request.path, json=dict(request.body), headers=dict(request.headers))
        except BadRedirect as error:
            raise ForgeRefused(f"the forge {error}") from error
        except httpx.HTTPError as error:
            raise ForgeRefused(f"the forge does not answer ({type(error).__name__})", temporary=True) from error
        if response.status_code >= 300:
            # GitLab answers 400 if the commit already has this status.
            if response.status_code == 400 and "Cannot transition status" in text_of(response):
                return
            raise ForgeRefused(
                f"the forge answered {response.status_code} to the status of a commit",
                advice="The token must have permission to write commit statuses, and no other.",
                temporary=response.status_code in _TRY_LATER,
                retry_after_s=retry_after_s(response.headers.get("retry-after")),
            )
