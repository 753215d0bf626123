"""The fields of an image config that publishing needs (image-spec, config.md): platform and diff ids."""

import json
from typing import Any

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.platform import Platform


def platform_of_config(data: bytes) -> Platform:
    """Return the platform of an image config; raise `InvalidInput` if it has none."""
    return Platform.from_json(_fields(data))


def diff_ids_of_config(data: bytes) -> tuple[Digest, ...]:
    """Return the digests of the uncompressed layers, lowest first; raise `InvalidInput` if the list is invalid."""
    rootfs = _fields(data).get("rootfs")
    ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise InvalidInput("the image config has no list rootfs.diff_ids")
    return tuple(Digest(each) for each in ids)


def _fields(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the image config is not valid JSON: {error!s:.200}") from error
    if not isinstance(fields, dict):
        raise InvalidInput("the image config is not a JSON object")
    return fields
