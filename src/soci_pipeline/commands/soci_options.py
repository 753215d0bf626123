"""The options for indexing layers, and the `SociOptions` that they configure."""

import click

from soci_pipeline.commands.command import Arguments, combine
from soci_pipeline.commands.numbers import size
from soci_pipeline.soci.gzip.span_size import LARGEST_SPAN_SIZE
from soci_pipeline.soci.index.records import SociOptions

_DEFAULTS = SociOptions()


options = combine(
    click.option(
        "--span-size",
        type=size(least=1, most=LARGEST_SPAN_SIZE),
        default=_DEFAULTS.span_size,
        metavar="BYTES",
        help="of uncompressed layer between two checkpoints",
    ),
    click.option(
        "--min-layer-size",
        type=size(least=0),
        default=_DEFAULTS.min_layer_size,
        metavar="BYTES",
        help="of compressed layer; smaller layers are not indexed",
    ),
)
"""``--span-size`` and ``--min-layer-size``."""


def options_of(arguments: Arguments, **others: object) -> SociOptions:
    """Return the options, with ``others`` for further fields; click has already validated the values."""
    sizes = {"span_size": arguments.span_size, "min_layer_size": arguments.min_layer_size}
    return SociOptions.model_validate(sizes | others)
