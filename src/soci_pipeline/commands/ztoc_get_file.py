"""Read one file of a layer using only its zTOC: only the spans that contain the file are read and decompressed.

The last entry of a path is used. A hard link is read as the file that its target was when the link was created, as in a
container. Without --output, the content is written to standard output.

Exit statuses: 0 read; 3 the file does not exist or is not a regular file, or the layer has a different size; 5 the zTOC
or a span is damaged.
"""

import os

import click

from soci_pipeline.commands import CommandResult, write_out
from soci_pipeline.commands.command import FILE_PATH, Arguments, command
from soci_pipeline.commands.ztoc import check_output, write_output
from soci_pipeline.commands.ztoc_info import read_ztoc
from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.ztoc.extract import file_chunks, find_file


@command(__doc__)
@click.argument("ztoc", type=FILE_PATH, metavar="ZTOC", help="the zTOC of the layer")
@click.argument("layer", type=FILE_PATH, metavar="LAYER", help="the layer's file")
@click.argument("path", metavar="PATH", help="the file's path in the image")
@click.option("--output", type=FILE_PATH, metavar="FILE", help="the file for the content; required with --json")
def run(arguments: Arguments) -> CommandResult:
    """Find the file and write its content."""
    if arguments.json and arguments.output is None:
        raise InvalidInput("--json requires --output, because both would go to standard output")
    if arguments.output is not None:
        check_output(arguments.output, arguments.ztoc, arguments.layer)
    ztoc = read_ztoc(arguments.ztoc)
    entry = find_file(ztoc, arguments.path)
    fetched = 0
    try:
        layer = arguments.layer.open("rb")
    except OSError as error:
        raise InvalidInput(
            f"{arguments.layer} cannot be read: {error.strerror}",
            advice="Use the layer's file; the order is ZTOC LAYER PATH.",
        ) from error
    with layer:
        size = os.fstat(layer.fileno()).st_size
        if size != ztoc.compressed_size:
            raise InvalidInput(
                f"{arguments.layer} has {size} bytes, but the zTOC belongs to a layer of {ztoc.compressed_size}",
                advice="Use the layer that the zTOC belongs to; the order is ZTOC LAYER PATH.",
            )

        def read_range(start: int, end: int) -> bytes:
            nonlocal fetched
            fetched += end - start
            layer.seek(start)
            data: bytes = layer.read(end - start)
            return data

        content = b"".join(file_chunks(ztoc, entry, read_range))
    if arguments.output is None:
        write_out(content)
    else:
        write_output(arguments.output, content)
    spans = ztoc.spans_of(entry.offset, entry.offset + entry.size)
    fields = {"digest": str(Digest.of(content)), "size": entry.size, "spans": list(spans), "bytes_read": fetched}
    return CommandResult(json=fields)
