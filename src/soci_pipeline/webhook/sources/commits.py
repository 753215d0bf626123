"""The commits that a push of GitHub or GitLab lists, which both write in one form."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from soci_pipeline.webhook.events import MAX_PATH_LENGTH, MAX_PATHS, MAX_PATHS_LENGTH

_TEXTS = {"type": "array", "items": {"type": "string"}}
COMMITS_SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {"type": "object", "properties": {"added": _TEXTS, "removed": _TEXTS, "modified": _TEXTS}},
}
"""JSON schema of the commits of a push."""


class Fields(BaseModel):
    """A part of an event: strict in what is known, and free to hold more."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Commit(Fields):
    """What one commit changed, as paths from the top of the repository."""

    added: list[str] = Field(default_factory=list)
    removed: list[str] = Field(default_factory=list)
    modified: list[str] = Field(default_factory=list)


def changed_paths(commits: Iterable[Commit]) -> frozenset[str] | None:
    """The paths that any of the commits changed; None where they are more than a receiver compares with patterns.

    What changed then counts as unknown, so that a large push is published and not rejected.
    """
    paths = frozenset(path for each in commits for path in (*each.added, *each.removed, *each.modified))
    lengths = [len(path) for path in paths]
    if len(paths) > MAX_PATHS or sum(lengths) > MAX_PATHS_LENGTH or max(lengths, default=0) > MAX_PATH_LENGTH:
        return None
    return paths
