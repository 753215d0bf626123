"""The changes that a publications file makes on a server: planned completely before any change."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import yaml

from soci_pipeline.errors import InvalidInput
from soci_pipeline.prefect_setup.publication_state import Record, State, state_of_file, state_of_server
from soci_pipeline.prefect_setup.three_way import Merge, OnConflict, merge, same
from soci_pipeline.publications.file import PublicationsFile
from soci_pipeline.publications.schema import FLOW, Publication
from soci_pipeline.publish.request import PublishRequest

ENTRYPOINT: Final = "flows/publish_image.py:publish_image"
COMMON_TAG: Final = "soci-pipeline"
FOLLOWED: Final = ("entrypoint", "path", "pull_steps", "version")
"""The fields that a publication's deployment shares with the deployment in `prefect.yaml`."""


_NOTHING_MERGED = Merge({})


class Action(StrEnum):
    """The action for one deployment."""

    MAKE = "make"
    CHANGE = "change"
    NOTHING = "unchanged"
    STOP = "conflict"
    REMOVE = "remove"
    LEFT = "no longer in the file"


@dataclass(frozen=True, slots=True)
class PlannedDeployment:
    """One deployment: the action, and why. ``invalid`` says what is wrong with the merged parameters."""

    name: str
    action: Action
    file: State = field(default_factory=dict)
    deployment: Mapping[str, Any] = field(default_factory=dict, repr=False)
    merge: Merge = _NOTHING_MERGED
    invalid: str = ""
    new_release: bool = False

    @property
    def full_name(self) -> str:
        return f"{FLOW}/{self.name}"


@dataclass(frozen=True, slots=True)
class PublicationsPlan:
    """The whole plan, with the deployment in `prefect.yaml` whose release the others follow."""

    owner: str
    tag: str
    release: Mapping[str, Any] = field(repr=False)
    deployments: tuple[PlannedDeployment, ...]


def declared_names(project: Path) -> list[str]:
    """Return the deployments of the flow in a checkout's `prefect.yaml`, the one that determines the release first."""
    path = project / "prefect.yaml"
    try:
        declared = yaml.safe_load(path.read_text())["deployments"]
        names = [str(each["name"]) for each in declared if each.get("entrypoint") == ENTRYPOINT]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"{path} cannot be read: {type(error).__name__}: {error}",
            advice="Correct the file, or restore it from git.",
        ) from error
    if not names:
        raise InvalidInput(f"{path} has no deployment of {ENTRYPOINT}", advice="Restore the file from git.")
    return names


def plan(
    file: PublicationsFile,
    existing: Mapping[str, Mapping[str, Any]],
    declared: Sequence[str],
    *,
    remove: bool = False,
    prefer: OnConflict = OnConflict.STOP,
) -> PublicationsPlan:
    """Compare a file with the deployments of the flow on the server, by name; raises `InvalidInput`.

    ``declared`` are the names that `prefect.yaml` has.
    """
    release = existing.get(declared[0])
    if release is None:
        raise InvalidInput(
            f"the deployment {FLOW}/{declared[0]} is not on the server, but publications are copies of it",
            advice="Deploy the project first: `prefect --no-prompt deploy --all` from its folder.",
        )
    content = file.content
    for each in content.publications:
        _check_free(file, each, existing.get(each.name), declared)
    named = [_planned(each, existing.get(each.name), release, prefer) for each in content.publications]
    left = list(_left(file, existing, remove=remove))
    return PublicationsPlan(content.owner, content.tag, release, (*named, *left))


def _check_free(
    file: PublicationsFile, publication: Publication, found: Mapping[str, Any] | None, declared: Sequence[str]
) -> None:
    name, tag = publication.name, file.content.tag
    if name in declared:
        raise file.rejected(
            name, "name", f": {publication.deployment} is a deployment of the project itself; choose another name"
        )
    if found is None or is_owned(found, tag):
        return
    others = ", ".join(sorted(each for each in found["tags"] if each.startswith("publications:")))
    whose = f"belongs to another file ({others})" if others else "was not made from a publications file"
    advice = (
        "choose another name" if others else f"choose another name, or give that deployment the tag {tag} to adopt it"
    )
    raise file.rejected(name, "name", f": {publication.deployment} is on the server and {whose}; {advice}")


def is_owned(deployment: Mapping[str, Any], tag: str) -> bool:
    """Whether a deployment belongs to a file: it has the file's tag, and is not a copy of one that does."""
    record = Record.of(deployment)
    return tag in deployment["tags"] and (record is None or record.name == deployment["name"])


def _planned(
    publication: Publication, found: Mapping[str, Any] | None, release: Mapping[str, Any], prefer: OnConflict
) -> PlannedDeployment:
    file, name = state_of_file(publication), publication.name
    if found is None:
        return PlannedDeployment(name, Action.MAKE, file, merge=Merge(file))
    record = Record.of(found)
    merged = merge(record.applied if record else {}, file, state_of_server(found), prefer)
    invalid = _why_invalid(merged.value["parameters"]) if merged.kept or merged.conflicts else ""
    if invalid or (merged.conflicts and prefer is OnConflict.STOP):
        return PlannedDeployment(name, Action.STOP, file, found, merged, invalid)
    outdated = is_outdated(found, release)
    changed = outdated or not same(merged.value, state_of_server(found)) or record is None
    # An outdated record is updated even if the server already agrees with the file.
    changed = changed or (record is not None and not same(record.applied, file))
    return PlannedDeployment(
        name, Action.CHANGE if changed else Action.NOTHING, file, found, merged, new_release=outdated
    )


def _why_invalid(parameters: Mapping[str, Any]) -> str:
    """Validate the merged parameters of file and server; return what is wrong, empty if they are valid."""
    try:
        PublishRequest.check(parameters)
    except InvalidInput as error:
        return error.reason
    return ""


def is_outdated(found: Mapping[str, Any], release: Mapping[str, Any]) -> bool:
    """Whether a deployment has a different release from the one in `prefect.yaml`."""
    return any(found.get(name) != release.get(name) for name in FOLLOWED) or _schema(found) != _schema(release)


def _schema(deployment: Mapping[str, Any]) -> dict[str, Any]:
    schema = deployment.get("parameter_openapi_schema") or {}
    return {name: value for name, value in schema.items() if not name.startswith("x-")}


def _left(
    file: PublicationsFile, existing: Mapping[str, Mapping[str, Any]], *, remove: bool
) -> Iterator[PlannedDeployment]:
    """Return the deployments that were created from this file and are no longer in it."""
    for name, found in existing.items():
        if file.content.publication(name) or not is_owned(found, file.content.tag) or Record.of(found) is None:
            continue
        yield PlannedDeployment(name, Action.REMOVE if remove else Action.LEFT, deployment=found)
