"""Write the zTOC of one layer: its table of contents and the positions where reading can start.

Only the media type determines how the layer is compressed. A layer that cannot be indexed writes nothing and reports
the reason.

Exit statuses: 0 written; 3 the file does not exist; 4 the layer cannot be indexed; 5 the layer is damaged; 6 it exceeds
a limit.
"""

from pathlib import Path

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import FILE_PATH, Arguments, combine, command
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


limit_options = combine(
    click.option(
        "--max-uncompressed-size",
        type=size(least=0),
        default=DEFAULT_LIMITS.uncompressed,
        metavar="BYTES",
        help="reject a layer that inflates to more",
    ),
    click.option(
        "--max-ztoc-size",
        type=size(least=0),
        default=DEFAULT_LIMITS.ztoc,
        metavar="BYTES",
        help="reject a layer whose zTOC would be larger",
    ),
)
"""The options that limit a hostile layer."""


def limits_of(arguments: Arguments) -> Limits:
    """Return the limits in the arguments."""
    return Limits(uncompressed=arguments.max_uncompressed_size, ztoc=arguments.max_ztoc_size)


@command(__doc__)
@click.argument("layer", type=FILE_PATH, metavar="LAYER", help="the layer's file")
@click.option("--media-type", required=True, metavar="MEDIA_TYPE", help="the layer's media type in the image manifest")
@click.option(
    "--span-size",
    type=size(least=1, most=LARGEST_SPAN_SIZE),
    default=DEFAULT_SPAN_SIZE,
    metavar="BYTES",
    help="of uncompressed layer between two checkpoints",
)
@click.option("--build-tool", default=BUILD_TOOL, metavar="ID", help="the build tool that the zTOC names")
@click.option("--output", type=FILE_PATH, required=True, metavar="FILE", help="the file for the zTOC")
@limit_options
def run(arguments: Arguments) -> CommandResult:
    """Build the zTOC and write it."""
    from soci_pipeline.soci.ztoc.build import build_ztoc

    if not arguments.layer.is_file():
        raise InvalidInput(f"there is no file {arguments.layer}", advice="Add the layer's file before the options.")
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
    """Reject a media type that no layer has, or that does not match this file: the file would appear damaged."""
    compression = layer_compression(media_type)
    if compression is Compression.UNKNOWN and not is_foreign_layer(media_type):
        raise InvalidInput(
            f"{media_type!r} is not a layer media type",
            advice=f"Use {OCI_LAYER_GZIP}, or {OCI_LAYER} for a plain tar.",
        )
    with layer.open("rb") as file:
        start = file.read(len(GZIP_MAGIC))
    if compression is Compression.NONE and start == GZIP_MAGIC:
        raise InvalidInput(
            f"{layer} is gzipped, but {media_type} is a plain tar", advice=f"Give {_GZIPPED[media_type]}."
        )
    if compression is Compression.GZIP and start and start != GZIP_MAGIC:
        raise InvalidInput(
            f"{layer} is not gzipped, but {media_type} says so", advice=f"Use {OCI_LAYER} for a plain tar."
        )


def check_output(output: Path, *inputs: Path) -> None:
    """Reject an output that would replace one of the inputs."""
    for path in inputs:
        if output.exists() and path.exists() and output.samefile(path):
            raise InvalidInput(f"--output {output} is the input {path}", advice="Use another file for the result.")


def write_output(path: Path, data: bytes) -> None:
    """Write the result to the user's file; raise `DiskFull` and leave no part of it."""
    try:
        path.write_bytes(data)
    except OSError as error:
        if error.errno in FULL:
            if path.is_file():
                path.unlink()
            raise DiskFull(f"{path} cannot be written: {error.strerror}", advice="Free space on that disk.") from error
        raise InvalidInput(
            f"{path} cannot be written: {error.strerror}", advice="Use a file in an existing folder."
        ) from error
