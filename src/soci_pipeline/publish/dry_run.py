"""The plan of a publication: source, tags, platforms, and what the registry already has. Nothing is changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from soci_pipeline.publish.local_run import Prepared, prepared, target_of, warn_of_unused_block
from soci_pipeline.publish.registries import connect
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.publish.target import Target
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import ManifestUnknown
from soci_pipeline.settings import Settings
from soci_pipeline.text import counted


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a publication.

    ``tags`` maps each tag to its current digest or None; ``builders`` is by platform. ``existing`` is the number of
    tags in the repository, None if the repository does not exist yet.
    """

    image: str
    source: str
    commit: str | None
    uncommitted: str | None
    tags: Mapping[str, str | None]
    builders: Mapping[str, str]
    existing: int | None
    left_out: Mapping[str, str] = field(default_factory=dict)
    not_built: Mapping[str, str] = field(default_factory=dict)
    runs_in: str = "this machine"

    def as_json(self) -> dict[str, Any]:
        """Return the object that the command prints with ``--json``."""
        return {"dry_run": True} | {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}

    def lines(self) -> list[str]:
        """Format the plan as a table for a terminal."""
        facts = [("source", self.source), ("commit", self.commit or f"none: {self.uncommitted}")]
        facts += [(f"tag {tag}", f"moves from {now}" if now else "is new") for tag, now in self.tags.items()]
        facts += [(f"tag {tag}", f"is skipped: {reason}") for tag, reason in self.left_out.items()]
        facts += [("runs in", self.runs_in)]
        facts += [(platform, who) for platform, who in self.builders.items()]
        facts += [(platform, f"not built: {reason}") for platform, reason in self.not_built.items()]
        there = "does not exist yet" if self.existing is None else f"has {counted(self.existing, 'tag')}"
        width = max(len(name) for name, _ in facts) + 2
        title = f"{self.image} would be published; nothing was changed."
        return [
            title,
            "",
            *(f"  {name:<{width}}{text}" for name, text in [*facts, ("repository", f"{there}; a push is allowed")]),
        ]


def plan_here(request: PublishRequest, settings: Settings, *, all_platforms: bool) -> Plan:
    """Resolve and check everything that a publication from this machine checks before its first build.

    Raises the error that the publication would end with, as far as it is predictable: a missing file in the source, a
    push that is not allowed, a tag that must not move.
    """
    warn_of_unused_block(request.image, settings)
    settings = without_new_repository(settings)
    with (
        prepared(request, settings, all_platforms=all_platforms) as (ready, _),
        connect(request.image, settings) as client,
    ):
        engine = request.prebuilt or settings.build.buildx_builder or "this machine's engine"
        builders = {str(platform): f"built by {engine}" for platform in ready.request.platforms}
        return plan_of(ready, target_of(ready, client, settings), builders)


def without_new_repository(settings: Settings) -> Settings:
    """Return settings that do not create a missing repository."""
    registry = settings.registry.model_copy(update={"create_repository": False})
    return settings.model_copy(update={"registry": registry})


def plan_of(ready: Prepared, target: Target, builders: Mapping[str, str]) -> Plan:
    """Return the plan for a checked target."""
    client, repository = target.client, target.image.repository
    names = [*target.names.tags, *(tag for own in target.names.of_platforms for tag in own.values())]
    return Plan(
        image=target.image.name,
        source=ready.request.source,
        commit=ready.commit,
        uncommitted=ready.uncommitted,
        tags={tag: _digest(client, repository, tag) for tag in names},
        builders=builders,
        existing=_tags_in(client, repository),
        left_out=ready.left_out,
        not_built=ready.not_built,
    )


def _digest(client: RegistryClient, repository: str, tag: str) -> str | None:
    found = client.manifests.head(repository, tag)
    return None if found is None else str(found.digest)


def _tags_in(client: RegistryClient, repository: str) -> int | None:
    try:
        return len(client.tags.list(repository))
    except ManifestUnknown:
        return None


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
