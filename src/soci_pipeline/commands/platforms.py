"""Platforms on the command line."""

from collections.abc import Iterable

from soci_pipeline.oci.platform import Platform


def platforms_of(values: Iterable[str] | None) -> tuple[Platform, ...]:
    """What a repeatable ``--platform`` names, each once; a value may be a list with commas.

    Raises `InvalidInput` for what is not a platform.
    """
    named = (Platform.parse(text) for value in values or () for text in value.split(","))
    return tuple(dict.fromkeys(named))
