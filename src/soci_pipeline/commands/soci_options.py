"""The options that say how layers are indexed, and the `SociOptions` that they make."""

import click
from pydantic import ValidationError

from soci_pipeline.commands.command import Arguments, together
from soci_pipeline.commands.numbers import size
from soci_pipeline.errors import InvalidInput
from soci_pipeline.soci.gzip.span_size import LARGEST_SPAN_SIZE
from soci_pipeline.soci.index.records import SociOptions
from soci_pipeline.validation import place_of, problems_of

_DEFAULTS = SociOptions()


options = together(
    click.option(
        "--span-size",
        type=size(least=1, most=LARGEST_SPAN_SIZE),
        default=_DEFAULTS.span_size,
        metavar="BYTES",
        help="of the inflated layer, between two checkpoints",
    ),
    click.option(
        "--min-layer-size",
        type=size(least=0),
        default=_DEFAULTS.min_layer_size,
        metavar="BYTES",
        help="of the stored layer; smaller ones are left out",
    ),
)
"""``--span-size`` and ``--min-layer-size``."""


def options_of(arguments: Arguments, **others: object) -> SociOptions:
    """What the options say, with ``others`` of its fields; raises `InvalidInput` that names the option."""
    sizes = {"span_size": arguments.span_size, "min_layer_size": arguments.min_layer_size}
    try:
        return SociOptions.model_validate(sizes | others)
    except ValidationError as error:
        fault = problems_of(error)[0]
        raise InvalidInput(f"--{place_of(fault).replace('_', '-')}: {fault.text}") from error
