"""Names of flow runs in a list, before and after they start."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

_LONGEST = 200
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_DIGITS = 12
_MARK_DIGITS = 6


def publication_name(parameters: Mapping[str, Any]) -> str:
    """Name a publication by its image, source and ref. The parameters are not validated yet."""
    image, source, ref = (value_of(parameters, name) for name in ("image", "source", "ref"))
    repository = image.partition("/")[2] or image or "no image"
    # `git@host:path` and a folder have no scheme.
    return f"{repository} from {source.rpartition('://')[2] or 'no source'} {abbreviated(ref)}".strip()


def abbreviated(ref: str) -> str:
    """Shorten a full commit id to 12 digits; return any other ref unchanged."""
    return ref[:_DIGITS] if _COMMIT.fullmatch(ref) else ref


def value_of(parameters: Mapping[str, Any], name: str) -> str:
    """Return a parameter as a string, empty if it is missing."""
    value = parameters.get(name)
    return "" if value is None or value is ... else str(value)


def marked(name: str, mark: str) -> str:
    """Add a mark to a name that distinguishes two runs of one image."""
    return f"{name[:_LONGEST]} #{mark[-_MARK_DIGITS:]}"


def waiting_name(deployment: str, parameters: Mapping[str, Any], key: str) -> str:
    """Name a run that has not started; its id is unknown, so the mark is derived from its idempotency key."""
    flow = deployment.partition("/")[0]
    name = publication_name(parameters) if flow == "publish-image" else value_of(parameters, "reference") or flow
    return marked(name, hashlib.sha256(key.encode()).hexdigest())
