"""Names of flow runs, as they are read in a list: while a run waits, and once it has started."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

_LONGEST = 200
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_DIGITS = 12
_MARK_DIGITS = 6


def publication_name(parameters: Mapping[str, Any]) -> str:
    """What a publication is called: the image, its source and the ref. The parameters are not checked yet."""
    image, source, ref = (value_of(parameters, name) for name in ("image", "source", "ref"))
    repository = image.partition("/")[2] or image or "no image"
    # `git@host:path` and a folder have no scheme.
    return f"{repository} from {source.rpartition('://')[2] or 'no source'} {abbreviated(ref)}".strip()


def abbreviated(ref: str) -> str:
    """A full commit id as its first 12 digits; any other ref as it is."""
    return ref[:_DIGITS] if _COMMIT.fullmatch(ref) else ref


def value_of(parameters: Mapping[str, Any], name: str) -> str:
    """A parameter as a string, empty where it was not given."""
    value = parameters.get(name)
    return "" if value is None or value is ... else str(value)


def marked(name: str, mark: str) -> str:
    """A name with a mark that distinguishes two runs of one image."""
    return f"{name[:_LONGEST]} #{mark[-_MARK_DIGITS:]}"


def waiting_name(deployment: str, parameters: Mapping[str, Any], key: str) -> str:
    """The name of a run that has not started. Its id is not known yet, so the mark is made of its idempotency key."""
    flow = deployment.partition("/")[0]
    name = publication_name(parameters) if flow == "publish-image" else value_of(parameters, "reference") or flow
    return marked(name, hashlib.sha256(key.encode()).hexdigest())
