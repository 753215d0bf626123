"""What a publication would do: source, tags, platforms, and what the registry has already. Nothing is changed."""

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
    """What would be done. ``tags`` has for each tag what it holds now, None for nothing; ``builders`` by platform.

    ``existing`` is how many tags the repository has, None where there is no such repository yet.
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
        """The object that the command prints with ``--json``."""
        return {"dry_run": True} | {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}

    def lines(self) -> list[str]:
        """The plan as a table for a terminal."""
        facts = [("source", self.source), ("commit", self.commit or f"none: {self.uncommitted}")]
        facts += [(f"tag {tag}", f"moves from {now}" if now else "is new") for tag, now in self.tags.items()]
        facts += [(f"tag {tag}", f"is left out: {reason}") for tag, reason in self.left_out.items()]
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

    Raises the error that the publication would end with, as far as it can be known: a missing file of the source, a
    push that is not allowed, a tag that may not move.
    """
    warn_of_unused_block(request.image, settings)
    settings = without_new_repository(settings)
    with (
        prepared(request, settings, all_platforms=all_platforms) as (ready, _),
        connect(request.image, settings) as client,
    ):
        engine = request.prebuilt or settings.build.buildx_builder or "the engine of this machine"
        builders = {str(platform): f"built by {engine}" for platform in ready.request.platforms}
        return plan_of(ready, target_of(ready, client, settings), builders)


def without_new_repository(settings: Settings) -> Settings:
    """The settings under which a missing repository is not made."""
    registry = settings.registry.model_copy(update={"create_repository": False})
    return settings.model_copy(update={"registry": registry})


def plan_of(ready: Prepared, target: Target, builders: Mapping[str, str]) -> Plan:
    """The plan of a checked target."""
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
