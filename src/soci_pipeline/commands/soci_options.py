"""The options that say how layers are indexed, and the `SociOptions` that they make."""

import click

from soci_pipeline.commands.command import Arguments, together
from soci_pipeline.commands.numbers import size
from soci_pipeline.soci.gzip.span_size import LARGEST_SPAN_SIZE
from soci_pipeline.soci.index.records import SociOptions

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
    """What the options say, with ``others`` of its fields; the options have checked their values already."""
    sizes = {"span_size": arguments.span_size, "min_layer_size": arguments.min_layer_size}
    return SociOptions.model_validate(sizes | others)
