"""Commit statuses at GitHub and GitLab: what became of a push, where the developer looks for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import quote

import httpx

from soci_pipeline.errors import TEMPORARY_STATUSES, InvalidInput
from soci_pipeline.http_client import BadRedirect, HttpClient, text_of
from soci_pipeline.retry import retry_after_s
from soci_pipeline.webhook.errors import ForgeRefused
from soci_pipeline.webhook.outbox import StatusTarget
from soci_pipeline.webhook.sources.github import GitHubSource
from soci_pipeline.webhook.sources.gitlab import GitLabSource
from soci_pipeline.webhook.sources.source import StatusSettings

_TRY_LATER = TEMPORARY_STATUSES | {403}  # 403 is how GitHub says "slow down"
_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class _Words:
    github: str
    gitlab: str
    text: str


_WORDS: Mapping[str, _Words] = {
    "SCHEDULED": _Words("pending", "pending", "publication scheduled"),
    "PENDING": _Words("pending", "pending", "publication starting"),
    "RUNNING": _Words("pending", "running", "publishing"),
    "PAUSED": _Words("pending", "running", "publication paused"),
    "CANCELLING": _Words("pending", "running", "publication being cancelled"),
    "COMPLETED": _Words("success", "success", "image published and verified"),
    "FAILED": _Words("failure", "failed", "publication failed"),
    "CRASHED": _Words("error", "failed", "publication crashed"),
    "CANCELLED": _Words("error", "canceled", "publication cancelled"),
    "NOT_STARTED": _Words("error", "failed", "publication could not be started"),
    "UNKNOWN": _Words("error", "failed", "the publication's run is gone"),
}


class Forge:
    """Writes commit statuses for one source; the token goes to the configured address alone."""

    def __init__(self, source: GitHubSource | GitLabSource, status: StatusSettings) -> None:
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
        """Set the status of a commit; ``outcome`` is the type of the run's state.

        Raises `ForgeRefused`, ``temporary`` where a later try may succeed.
        """
        words = _WORDS.get(outcome, _WORDS["UNKNOWN"])
        name = f"{self._status.context}/{rule}"
        token = self._token()
        if isinstance(self._source, GitHubSource):
            path = f"/repos/{quote(target.project, safe='/')}/statuses/{target.commit}"
            body = {"state": words.github, "context": name, "description": words.text}
            headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
        else:
            path = f"/projects/{quote(target.project, safe='')}/statuses/{target.commit}"
            body = {"state": words.gitlab, "name": name, "description": words.text}
            headers = {"PRIVATE-TOKEN": token}
        if link is not None:
            body["target_url"] = link
        self._post(path, body, headers)

    def _token(self) -> str:
        try:
            return self._status.token.read_text()
        except InvalidInput as error:
            # Who rotates a secret may take the file away before the new one is there.
            raise ForgeRefused(
                f"the token of the forge: {error.reason}", advice=error.advice, temporary=True
            ) from error

    def _post(self, path: str, body: Mapping[str, str], headers: Mapping[str, str]) -> None:
        try:
            response = self._client.post(path, json=dict(body), headers=dict(headers))
        except BadRedirect as error:
            raise ForgeRefused(f"the forge {error}") from error
        except httpx.HTTPError as error:
            raise ForgeRefused(f"the forge does not answer ({type(error).__name__})", temporary=True) from error
        if response.status_code >= 300:
            # GitLab answers 400 where the status is already what it should be.
            if response.status_code == 400 and "Cannot transition status" in text_of(response):
                return
            raise ForgeRefused(
                f"the forge answered {response.status_code} to the status of a commit",
                advice="The token needs the right to write commit statuses, and no other.",
                temporary=response.status_code in _TRY_LATER,
                retry_after_s=retry_after_s(response.headers.get("retry-after")),
            )
