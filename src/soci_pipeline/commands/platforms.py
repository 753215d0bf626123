"""Platforms on the command line."""

from collections.abc import Iterable

from soci_pipeline.oci.platform import Platform


def platforms_of(values: Iterable[str] | None) -> tuple[Platform, ...]:
    """Return the platforms of a repeatable ``--platform`` without duplicates; a value may be a comma-separated list.

    Raises `InvalidInput` for an invalid platform.
    """
    named = (Platform.parse(text) for value in values or () for text in value.split(","))
    return tuple(dict.fromkeys(named))
