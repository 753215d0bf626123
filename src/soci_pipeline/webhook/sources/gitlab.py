"""GitLab: signing tokens, or the classic secret token for a webhook without one.

With a signing token (``whsec_…``) GitLab signs ID, timestamp and body in the Standard Webhooks scheme. The classic
token is sent as a plain header: it proves that the sender knows it but does not protect the body, so prefer a signing
token. A source with signing tokens never falls back to the classic one.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self
from urllib.parse import quote

from pydantic import Field, ValidationError, model_validator

from soci_pipeline.webhook.errors import SignatureRefused
from soci_pipeline.webhook.events import Event, Ignored, push_event, refuse
from soci_pipeline.webhook.secret_values import SecretSource, read_keys
from soci_pipeline.webhook.sources import Headers, any_equal, header, standard
from soci_pipeline.webhook.sources.commits import COMMITS_SCHEMA, Commits, changed_paths
from soci_pipeline.webhook.sources.source import CommitStatus, Fields, Schema, StatusRequest, StatusSource

_MAX_COMMITS = 20
_STATES: Mapping[str, str] = {
    "SCHEDULED": "pending",
    "PENDING": "pending",
    "RUNNING": "running",
    "PAUSED": "running",
    "CANCELLING": "running",
    "COMPLETED": "success",
    "CANCELLED": "canceled",
}
"""GitLab's name for the state of a run; every other state is ``failed``."""
_PUSHES = {"Push Hook": "push", "Tag Push Hook": "tag_push"}


class GitLabSource(StatusSource):
    """A webhook of a project or group: signing tokens or classic secret tokens, not both."""

    kind: Literal["gitlab"]
    signing_tokens: tuple[SecretSource, ...] = Field(default=(), max_length=2)
    tokens: tuple[SecretSource, ...] = Field(default=(), max_length=2)
    forced_pushes: bool = False
    """Whether branches may be force-pushed. GitLab does not mark such pushes, so `paths` then matches every push."""
    push_header: ClassVar[tuple[str, str]] = ("x-gitlab-event", "Push Hook")
    body_schema: ClassVar[Schema] = {
        "type": "object",
        "required": ["object_kind", "ref", "after", "project"],
        "properties": {
            "object_kind": {"type": "string"},
            "ref": {"type": "string"},
            "after": {"type": "string"},
            "checkout_sha": {"type": ["string", "null"]},
            "project": {
                "type": "object",
                "required": ["id", "path_with_namespace", "git_http_url"],
                "properties": {
                    "id": {"type": "integer"},
                    "path_with_namespace": {"type": "string"},
                    "git_http_url": {"type": "string"},
                },
            },
            "commits": COMMITS_SCHEMA,
        },
    }

    @model_validator(mode="after")
    def _one_of_the_two_schemes_is_used(self) -> Self:
        if bool(self.signing_tokens) == bool(self.tokens):
            raise ValueError("set either signing_tokens or tokens: with both, the weaker one would decide")
        return self

    @property
    def keys(self) -> tuple[SecretSource, ...]:
        return self.signing_tokens or self.tokens

    @property
    def header_schemas(self) -> Mapping[str, Schema]:
        event = {"X-Gitlab-Event": {"type": "string", "enum": list(_PUSHES)}}
        if self.tokens:
            return {"X-Gitlab-Token": {"type": "string", "minLength": 1}} | event
        return standard.HEADER_SCHEMAS | event

    def verify(self, headers: Headers, body: bytes, now: float) -> bytes:
        if self.tokens:
            return verify_token(headers, body, read_keys(self.tokens))
        return standard.verify(headers, body, read_keys(self.signing_tokens), now)

    def parse(self, headers: Headers, body: bytes) -> Event | Ignored:
        return parse(headers, body, forced_pushes=self.forced_pushes)

    def status_request(self, status: CommitStatus, token: str) -> StatusRequest:
        return StatusRequest(
            path=f"/projects/{quote(status.project, safe='')}/statuses/{status.commit}",
            headers={"PRIVATE-TOKEN": token},
            body=status.with_link(
                state=_STATES.get(status.outcome, "failed"), name=status.name, description=status.text
            ),
        )


class _Project(Fields):
    id: int
    path_with_namespace: str
    git_http_url: str


class _Push(Fields):
    object_kind: str
    ref: str
    before: str = ""
    after: str
    checkout_sha: str | None = None
    project: _Project
    commits: Commits = Field(default_factory=list)
    total_commits_count: int | None = None


def verify_token(headers: Headers, body: bytes, secrets: Sequence[bytes]) -> bytes:
    """Compare the classic token in constant time; return the body, although it is not signed."""
    given = header(headers, "x-gitlab-token").encode("latin-1", "replace")
    if not any_equal(given, secrets):
        raise SignatureRefused("the token does not match any of the tokens")
    return body


def parse(headers: Headers, body: bytes, *, forced_pushes: bool = False) -> Event | Ignored:
    """Parse a push of a branch or tag; every other GitLab event is ignored by its name.

    The commits that a forced push removes are not listed, and it cannot be distinguished from other pushes: with
    ``forced_pushes`` the changed paths of every push count as unknown.
    """
    kind = _PUSHES.get(headers.get("x-gitlab-event", ""))
    if kind is None:
        return Ignored(reason="not a push event")
    try:
        push = _Push.model_validate_json(body)
        if push.object_kind != kind:
            return Ignored(reason="the event does not match its header")
        # For an annotated tag `after` is the tag object, and only `checkout_sha` is the commit.
        commit = push.checkout_sha or push.after
        if push.checkout_sha is None or set(push.after) == {"0"}:
            return Ignored(reason="the ref was deleted")
        return push_event(
            repository=push.project.path_with_namespace,
            clone_url=push.project.git_http_url,
            ref=push.ref,
            commit=commit,
            paths=None if forced_pushes else _paths(push),
            project=str(push.project.id),
        )
    except ValidationError as error:
        raise refuse(error) from None


def _paths(push: _Push) -> frozenset[str] | None:
    # A new ref has an all-zero `before`.
    if not push.commits or set(push.before) <= {"0"}:
        return None
    # GitLab lists only the newest 20 commits, with their total number.
    count, total = len(push.commits), push.total_commits_count
    is_whole = count >= total if total else count < _MAX_COMMITS
    return changed_paths(push.commits) if is_whole else None
