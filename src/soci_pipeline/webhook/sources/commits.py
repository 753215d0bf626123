"""The list of commits in a push from GitHub, Gitea, Forgejo or GitLab, which share one format."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from soci_pipeline.webhook.events import MAX_PATH_LENGTH, MAX_PATHS, MAX_PATHS_LENGTH
from soci_pipeline.webhook.sources.source import Fields

_TEXTS = {"type": "array", "items": {"type": "string"}}
COMMITS_SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {"type": "object", "properties": {"added": _TEXTS, "removed": _TEXTS, "modified": _TEXTS}},
}
"""JSON schema of the commits of a push."""


def _listed(value: Any) -> Any:
    return [] if value is None else value


# Forges written in Go send null for an empty list.
Paths = Annotated[list[str], BeforeValidator(_listed)]


class Commit(Fields):
    """The changes of one commit, as paths relative to the root of the repository."""

    added: Paths = Field(default_factory=list)
    removed: Paths = Field(default_factory=list)
    modified: Paths = Field(default_factory=list)

    @property
    def paths(self) -> tuple[str, ...]:
        """All changed paths."""
        return (*self.added, *self.removed, *self.modified)


Commits = Annotated[list[Commit], BeforeValidator(_listed)]


def changed_paths(commits: Iterable[Commit]) -> frozenset[str] | None:
    """Return the paths changed by any of the commits, or None if there are too many to match with patterns.

    None means that the changes are unknown, so that a large push is published instead of rejected.
    """
    paths = frozenset(path for each in commits for path in each.paths)
    lengths = [len(path) for path in paths]
    if len(paths) > MAX_PATHS or sum(lengths) > MAX_PATHS_LENGTH or max(lengths, default=0) > MAX_PATH_LENGTH:
        return None
    return paths
