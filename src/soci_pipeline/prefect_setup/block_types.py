"""The types of the blocks for AWS credentials and secrets, so that Prefect's UI offers them."""

import html
import importlib.metadata
import runpy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from soci_pipeline.errors import ToolFailed
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_setup.declared import declared_block_types
from soci_pipeline.prefect_setup.steps import Note, Step

_KIND = "blocks"
_UPDATED = ("logo_url", "documentation_url", "description", "code_example")


def installed_block_types(deployments: Path) -> tuple[dict[str, Any], ...]:
    """The block types of the installed prefect-aws; none if it is not installed.

    The checkout has those of one version as files. Of any other version, ``block_types.py`` in the checkout reads them
    from the package itself, which imports Prefect and takes seconds.
    """
    try:
        version = importlib.metadata.version("prefect-aws")
    except importlib.metadata.PackageNotFoundError:
        return ()
    declared = declared_block_types(deployments / "block-types")
    if all(each["block_schema"]["version"] == version for each in declared):
        return declared
    try:
        return tuple(runpy.run_path(str(deployments / "block_types.py"))["documents"]())
    except (ImportError, AttributeError, ValueError) as error:
        raise ToolFailed(
            f"cannot read the block types of prefect-aws {version}: {type(error).__name__}: {error}",
            advice="Install the versions that the project pins: `pip install '.[prefect,aws]'` in the checkout.",
        ) from error


def block_type_steps(api: PrefectApi, block_types: Sequence[Mapping[str, Any]]) -> list[Step]:
    """Return the steps for each block type."""
    if not block_types:
        return [Step((Note(_KIND, "aws", "skipped: prefect-aws is not installed"),))]
    return [_step(api, each) for each in block_types]


def _step(api: PrefectApi, block_type: Mapping[str, Any]) -> Step:
    fields = {name: value for name, value in block_type.items() if name != "block_schema"}
    schema, slug = block_type["block_schema"], str(block_type["slug"])
    existing = api.block_type(slug)
    if existing is None:
        return Step((Note(_KIND, slug, "registered"),), (partial(_register, api, fields, schema),))
    own, changes = str(existing["id"]), []
    if any(_shown(existing.get(name)) != _shown(fields[name]) for name in _UPDATED):
        changes.append(partial(api.update_block_type, own, {name: fields[name] for name in _UPDATED}))
    if not api.has_block_schema(schema["checksum"], schema["version"]):
        changes.append(partial(_add_schema, api, own, schema))
    return Step((Note(_KIND, slug, "updated" if changes else "unchanged"),), tuple(changes))


def _register(api: PrefectApi, fields: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    _add_schema(api, api.create_block_type(fields), schema)


def _add_schema(api: PrefectApi, block_type: str, schema: Mapping[str, Any]) -> None:
    fields = {name: schema[name] for name in ("fields", "capabilities", "version")}
    api.create_block_schema(fields | {"block_type_id": block_type})


def _shown(text: str | None) -> str | None:
    """Return a text as the UI shows it: the server may store it escaped for HTML."""
    return None if text is None else html.unescape(text)
