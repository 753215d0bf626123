"""GitHub: HMAC-SHA256 over the raw body in ``X-Hub-Signature-256`` (its docs, "Validating webhook deliveries").

Gitea and Forgejo send the same headers and nearly the same push: with ``total_commits``, without ``created`` and
``forced``.

Neither the event name nor the delivery ID is signed, and there is no timestamp. So the event header only selects the
shape that the body must have, and replays are detected by the body alone.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal
from urllib.parse import quote

from pydantic import Field, ValidationError

from soci_pipeline.webhook.errors import SignatureRefused
from soci_pipeline.webhook.events import Event, Ignored, push_event, refuse
from soci_pipeline.webhook.secret_values import SecretSource, read_keys
from soci_pipeline.webhook.sources import Headers, any_equal, header
from soci_pipeline.webhook.sources.commits import COMMITS_SCHEMA, Commits, changed_paths
from soci_pipeline.webhook.sources.source import CommitStatus, Fields, Keys, Schema, StatusRequest, StatusSource

# The maximum that GitHub lists for one push and for one commit (its docs, "push"). A list of that length may be
# truncated, so the changes are unknown. Its docs also mention 20 commits; older servers do not mark such a list either.
_MAX_COMMITS = 2048
_MAX_COMMITS_OF_OLDER_SERVERS = 20
_MAX_FILES = 3000
_STATES: Mapping[str, str] = {
    "SCHEDULED": "pending",
    "PENDING": "pending",
    "RUNNING": "pending",
    "PAUSED": "pending",
    "CANCELLING": "pending",
    "COMPLETED": "success",
    "FAILED": "failure",
}
"""GitHub's name for the state of a run; every other state is an ``error``."""


class GitHubSource(StatusSource):
    """A webhook of a repository or organisation, with a secret and content type application/json."""

    kind: Literal["github"]
    secrets: Keys
    forced_pushes: bool = False
    """Like `GitLabSource.forced_pushes`, for pushes that do not say if they were forced: those of Gitea and Forgejo."""
    push_header: ClassVar[tuple[str, str]] = ("x-github-event", "push")
    body_schema: ClassVar[Schema] = {
        "type": "object",
        "required": ["ref", "after", "repository"],
        "properties": {
            "ref": {"type": "string"},
            "after": {"type": "string"},
            "repository": {
                "type": "object",
                "required": ["full_name", "clone_url"],
                "properties": {"full_name": {"type": "string"}, "clone_url": {"type": "string"}},
            },
            "commits": COMMITS_SCHEMA,
        },
    }

    @property
    def keys(self) -> tuple[SecretSource, ...]:
        return self.secrets

    @property
    def header_schemas(self) -> Mapping[str, Schema]:
        signature = {"type": "string", "pattern": "^sha256=[0-9a-f]{64}$"}
        return {"X-Hub-Signature-256": signature, "X-GitHub-Event": {"type": "string", "enum": ["push", "ping"]}}

    def verify(self, headers: Headers, body: bytes, now: float) -> bytes:  # noqa: ARG002 - there is no timestamp
        return verify(headers, body, read_keys(self.keys))

    def parse(self, headers: Headers, body: bytes) -> Event | Ignored:
        return parse(headers, body, forced_pushes=self.forced_pushes)

    def status_request(self, status: CommitStatus, token: str) -> StatusRequest:
        return StatusRequest(
            path=f"/repos/{quote(status.project, safe='/')}/statuses/{status.commit}",
            headers={"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"},
            body=status.with_link(
                state=_STATES.get(status.outcome, "error"), context=status.name, description=status.text
            ),
        )


class _Repository(Fields):
    full_name: str
    clone_url: str


class _HeadCommit(Fields):
    id: str


class _Push(Fields):
    ref: str
    after: str
    created: bool = False
    deleted: bool = False
    forced: bool | None = None
    repository: _Repository
    head_commit: _HeadCommit | None = None
    before: str = ""
    commits: Commits = Field(default_factory=list)
    total_commits: int = 0


def sign(secret: bytes, body: bytes) -> str:
    """Return the value of ``X-Hub-Signature-256`` for a body."""
    return "sha256=" + hmac.digest(secret, body, hashlib.sha256).hex()


def verify(headers: Headers, body: bytes, secrets: Sequence[bytes]) -> bytes:
    """Verify the signature; return the body, the only signed part."""
    given = header(headers, "x-hub-signature-256").encode("latin-1", "replace")
    if not any_equal(given, [sign(secret, body).encode() for secret in secrets]):
        raise SignatureRefused("the signature does not match any of the keys")
    return body


def parse(headers: Headers, body: bytes, *, forced_pushes: bool = False) -> Event | Ignored:
    """Parse a push; every other GitHub event is ignored by its name.

    ``forced_pushes`` is the default for a push that does not say whether it was forced.
    """
    name = headers.get("x-github-event", "")
    if name != "push":
        return Ignored(reason="a ping" if name == "ping" else "not a push event")
    try:
        push = _Push.model_validate_json(body)
        if push.deleted or set(push.after) == {"0"}:
            return Ignored(reason="the ref was deleted")
        return push_event(
            repository=push.repository.full_name,
            clone_url=push.repository.clone_url,
            ref=push.ref,
            # For an annotated tag `after` is the tag object.
            commit=push.head_commit.id if push.head_commit else push.after,
            paths=_paths(push, forced=forced_pushes if push.forced is None else push.forced),
        )
    except ValidationError as error:
        raise refuse(error) from None


def _paths(push: _Push, *, forced: bool) -> frozenset[str] | None:
    # A new ref does not list commits that another ref has, and a forced push lists only some of the differences.
    if push.created or forced or set(push.before) == {"0"}:
        return None
    count = len(push.commits)
    if count in (0, _MAX_COMMITS_OF_OLDER_SERVERS) or count >= _MAX_COMMITS or count < push.total_commits:
        return None
    if any(len(each.paths) >= _MAX_FILES for each in push.commits):
        return None
    return changed_paths(push.commits)
