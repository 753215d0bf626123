"""Parse and compare the versions that tools print."""

import re

from soci_pipeline.errors import ToolMissing

_VERSION = re.compile(r"(?<![\w.])v?(\d+)\.(\d+)(?:\.(\d+))?")

Version = tuple[int, int, int]


class ToolTooOld(ToolMissing):
    """A program is too old."""


def find_version(text: str) -> Version | None:
    """Return the first ``1.2`` or ``v1.2.3`` in a string."""
    match = _VERSION.search(text)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3] or 0))


def require_version(program: str, printed: str, minimum: Version, *, why: str, package: str) -> Version:
    """Return the version in ``printed``; raise `ToolTooOld` if it is below ``minimum`` or cannot be parsed."""
    version = find_version(printed)
    wanted = ".".join(map(str, minimum))
    advice = f"Install {program} {wanted} or newer (package {package})."
    if version is None:
        raise ToolTooOld(f"{program} does not print a version: {printed.strip()[:200]!r}", advice=advice)
    if version < minimum:
        there = ".".join(map(str, version))
        raise ToolTooOld(f"{program} is {there}, but {wanted} is required {why}", advice=advice)
    return version
