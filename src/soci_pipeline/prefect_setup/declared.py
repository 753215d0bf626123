"""The declarations of the checkout below ``deployments``, read completely before anything on the server changes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from soci_pipeline.errors import InvalidInput
from soci_pipeline.strict_yaml import StrictLoader

_BLOCK_TYPE = {"name", "slug", "logo_url", "documentation_url", "description", "code_example"}
_BLOCK_SCHEMA = {"checksum", "fields", "capabilities", "version"}
NOTIFICATION = "notify-failed-publications"
"""The automation that is installed only with a block to notify."""


@dataclass(frozen=True, slots=True)
class DeclaredPool:
    """A work pool that the deployments use. The limit is that of a new pool."""

    name: str
    description: str
    concurrency_limit: int | None


@dataclass(frozen=True, slots=True)
class DeclaredPools:
    """The work pools, the job template of a new one, and the environment that all of them must have."""

    pools: tuple[DeclaredPool, ...]
    template: dict[str, Any]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class DeclaredAutomation:
    """An automation: its fields in the form of Prefect's REST API; ``notifies`` if it requires a notification block."""

    name: str
    fields: dict[str, Any]
    notifies: bool


def declared_pools(folder: Path) -> DeclaredPools:
    """Read the work pools from ``pools.yaml`` in a folder; raise `InvalidInput`."""
    path = folder / "pools.yaml"
    plan = _mapping(_content(path), path)
    template, environment, pools = (plan.get(name) for name in ("template", "environment", "pools"))
    if not isinstance(template, str) or not isinstance(pools, list):
        raise _invalid(path, "it must have `template` (a file name) and `pools` (a list)")
    return DeclaredPools(
        pools=tuple(_pool(each, path) for each in pools),
        template=_mapping(_content(folder / template), folder / template),
        environment={str(name): str(value) for name, value in _mapping(environment or {}, path).items()},
    )


def _pool(fields: Any, path: Path) -> DeclaredPool:
    fields = _mapping(fields, path)
    name, limit = fields.get("name"), fields.get("concurrency_limit")
    if not isinstance(name, str) or not name or "/" in name:
        raise _invalid(path, f"every pool must have a `name` without slashes, not {name!r}")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise _invalid(path, f"`concurrency_limit` of {name} must be an integer of at least 0, not {limit!r}")
    return DeclaredPool(name, str(fields.get("description") or ""), limit)


def declared_automations(folder: Path) -> tuple[DeclaredAutomation, ...]:
    """Read the automations of a folder, one file each; raise `InvalidInput`."""
    return tuple(_automation(path) for path in sorted(folder.glob("*.yaml")))


def _automation(path: Path) -> DeclaredAutomation:
    fields = _mapping(_content(path), path)
    name, actions = fields.get("name"), fields.get("actions")
    if not isinstance(name, str) or not isinstance(actions, list) or not actions:
        raise _invalid(path, "it must have `name` (a string) and `actions` (a list)")
    for part in (fields.get("trigger"), *actions):
        _mapping(part, path)
    return DeclaredAutomation(name, fields, notifies=path.stem == NOTIFICATION)


def declared_block_types(folder: Path) -> tuple[dict[str, Any], ...]:
    """Read the block types of a folder, one file each; a type comes after those of its fields."""
    return tuple(_block_type(path) for path in sorted(folder.glob("*.json")))


def _block_type(path: Path) -> dict[str, Any]:
    fields = _mapping(_content(path), path)
    schema = _mapping(fields.get("block_schema"), path)
    missing = [*sorted(_BLOCK_TYPE - fields.keys()), *sorted(_BLOCK_SCHEMA - schema.keys())]
    if missing:
        raise _invalid(path, f"missing: {', '.join(missing)}")
    return fields


def _content(path: Path) -> Any:
    try:
        text = path.read_text()
        return json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _invalid(path, str(error)) from error


def _mapping(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _invalid(path, f"must be a mapping, not {value!r}"[:200])
    return dict(value)


def _invalid(path: Path, cause: str) -> InvalidInput:
    return InvalidInput(f"{path} is not valid: {cause}", advice="Correct the file, or restore it from git.")
