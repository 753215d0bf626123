"""Write the zTOC of one layer: its table of contents and the places where reading it can begin.

The media type alone says how the layer is compressed. A layer that cannot be indexed writes nothing and says why.

Exit statuses: 0 written; 3 there is no such file; 4 the layer cannot be indexed; 5 the layer is damaged; 6 it exceeds a
limit.
"""

from pathlib import Path

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import FILE_PATH, Arguments, command, together
from soci_pipeline.commands.numbers import size
from soci_pipeline.errors import DiskFull, InvalidInput
from soci_pipeline.full_disk import FULL
from soci_pipeline.oci.media_types import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    GZIP_MAGIC,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    Compression,
    is_foreign_layer,
    layer_compression,
)
from soci_pipeline.soci.gzip.span_size import DEFAULT_SPAN_SIZE, LARGEST_SPAN_SIZE
from soci_pipeline.soci.limits import DEFAULT_LIMITS, Limits
from soci_pipeline.soci.ztoc.build_tool import BUILD_TOOL
from soci_pipeline.text import counted

_GZIPPED = {OCI_LAYER: OCI_LAYER_GZIP, DOCKER_LAYER: DOCKER_LAYER_GZIP}


limit_options = together(
    click.option(
        "--max-uncompressed-size",
        type=size(least=0),
        default=DEFAULT_LIMITS.uncompressed,
        metavar="BYTES",
        help="refuse a layer that inflates to more",
    ),
    click.option(
        "--max-ztoc-size",
        type=size(least=0),
        default=DEFAULT_LIMITS.ztoc,
        metavar="BYTES",
        help="refuse a layer whose zTOC would be larger",
    ),
)
"""The options that bound a hostile layer."""


def limits_of(arguments: Arguments) -> Limits:
    """The limits that the arguments ask for."""
    return Limits(uncompressed=arguments.max_uncompressed_size, ztoc=arguments.max_ztoc_size)


@command(__doc__)
@click.argument("layer", type=FILE_PATH, metavar="LAYER", help="the layer's file")
@click.option(
    "--media-type", required=True, metavar="MEDIA_TYPE", help="the layer's media type, as the image manifest has it"
)
@click.option(
    "--span-size",
    type=size(least=1, most=LARGEST_SPAN_SIZE),
    default=DEFAULT_SPAN_SIZE,
    metavar="BYTES",
    help="of the inflated layer, between two checkpoints",
)
@click.option("--build-tool", default=BUILD_TOOL, metavar="ID", help="what the zTOC names as its maker")
@click.option("--output", type=FILE_PATH, required=True, metavar="FILE", help="where the zTOC goes")
@limit_options
def run(arguments: Arguments) -> CommandResult:
    """Build the zTOC and write it."""
    from soci_pipeline.soci.ztoc.build import build_ztoc

    if not arguments.layer.is_file():
        raise InvalidInput(f"there is no file {arguments.layer}", advice="Give the layer's file, then the options.")
    check_output(arguments.output, arguments.layer)
    _check_type(arguments.layer, arguments.media_type)
    built = build_ztoc(
        arguments.layer,
        arguments.media_type,
        span_size=arguments.span_size,
        build_tool=arguments.build_tool,
        limits=limits_of(arguments),
    )
    write_output(arguments.output, built.data)
    fields = {"digest": str(built.digest), "size": built.size, "spans": built.spans, "entries": built.entries}
    contents = f"{counted(built.spans, 'span')}, {counted(built.entries, 'entry', 'entries')}"
    text = f"{built.digest}: {built.size} bytes, {contents}"
    return CommandResult(json=fields, text=text)


def _check_type(layer: Path, media_type: str) -> None:
    """Refuse a type that no layer has, and one that this file cannot have: read as such it would seem damaged."""
    compression = layer_compression(media_type)
    if compression is Compression.UNKNOWN and not is_foreign_layer(media_type):
        raise InvalidInput(
            f"{media_type!r} is not the media type of a layer",
            advice=f"Give {OCI_LAYER_GZIP}, or {OCI_LAYER} for a plain tar.",
        )
    with layer.open("rb") as file:
        start = file.read(len(GZIP_MAGIC))
    if compression is Compression.NONE and start == GZIP_MAGIC:
        raise InvalidInput(
            f"{layer} is gzipped, and {media_type} is a plain tar", advice=f"Give {_GZIPPED[media_type]}."
        )
    if compression is Compression.GZIP and start and start != GZIP_MAGIC:
        raise InvalidInput(f"{layer} is not gzipped, as {media_type} says", advice=f"A plain tar is {OCI_LAYER}.")


def check_output(output: Path, *inputs: Path) -> None:
    """Refuse an output that would replace one of the inputs."""
    for path in inputs:
        if output.exists() and path.exists() and output.samefile(path):
            raise InvalidInput(f"--output {output} is the input {path}", advice="Name another file for the result.")


def write_output(path: Path, data: bytes) -> None:
    """Write the result where the user wants it; raises `DiskFull`, and then leaves no part of it."""
    try:
        path.write_bytes(data)
    except OSError as error:
        if error.errno in FULL:
            if path.is_file():
                path.unlink()
            raise DiskFull(f"{path} cannot be written: {error.strerror}", advice="Free space on that disk.") from error
        raise InvalidInput(
            f"{path} cannot be written: {error.strerror}", advice="Name a file in a folder that is there."
        ) from error
