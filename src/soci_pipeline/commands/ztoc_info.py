"""Show the contents of a zTOC: sizes, spans, and the table of contents.

Exit statuses: 0 shown; 3 the file does not exist, or is a layer instead of a zTOC; 5 the file is not a valid zTOC.
"""

from pathlib import Path
from typing import Any

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import FILE_PATH, Arguments, command
from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.media_types import GZIP_MAGIC
from soci_pipeline.soci.gzip.checkpoints import GzipCheckpoints
from soci_pipeline.soci.tar.entries import Entry
from soci_pipeline.soci.ztoc.codec import InvalidZtoc, Ztoc, decode
from soci_pipeline.text import counted


@command(__doc__)
@click.argument("ztoc", type=FILE_PATH, metavar="FILE", help="a zTOC")
def run(arguments: Arguments) -> CommandResult:
    """Decode the zTOC and describe it."""
    ztoc = read_ztoc(arguments.ztoc)
    fields = {
        "version": "0.9",
        "build_tool": ztoc.build_tool,
        "compression": str(ztoc.compression),
        "compressed_size": ztoc.compressed_size,
        "uncompressed_size": ztoc.uncompressed_size,
        "span_size": ztoc.span_size,
        "spans": [_span(ztoc, number) for number in range(ztoc.spans)],
        "entries": [_entry(entry) for entry in ztoc.entries],
    }
    return CommandResult(json=fields, text=_text(ztoc))


def read_ztoc(path: Path) -> Ztoc:
    """Read the zTOC in a file that the user named.

    Raises `InvalidInput`, and `InvalidZtoc` with the file's name.
    """
    try:
        data = path.read_bytes()
        if data.startswith(GZIP_MAGIC):
            raise InvalidInput(
                f"{path} is gzipped, so it is not a zTOC", advice="`soci-pipeline ztoc` creates one from a layer."
            )
        return decode(data)
    except IsADirectoryError as error:
        raise InvalidInput(
            f"{path} is a folder", advice="Use one zTOC file; in an OCI layout it is in blobs/sha256 under its digest."
        ) from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except InvalidZtoc as error:
        raise InvalidZtoc(f"{path}: {error.reason}", advice=error.advice) from error


def _span(ztoc: Ztoc, number: int) -> dict[str, Any]:
    stored, content = ztoc.stored_range(number), ztoc.content_range(number)
    points = ztoc.checkpoints
    bits = points.points[number].bits if isinstance(points, GzipCheckpoints) else 0
    return {
        "digest": str(ztoc.span_digests[number]),
        "compressed": {"start": stored[0], "end": stored[1]},
        "uncompressed": {"start": content[0], "end": content[1]},
        "bits": bits,
    }


def _entry(entry: Entry) -> dict[str, Any]:
    fields: dict[str, Any] = {
        key: value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
        for key, value in entry._asdict().items()
        if key != "pax"
    }
    fields["pax"] = {key.decode(errors="backslashreplace"): value.hex() for key, value in entry.pax}
    return fields


def _text(ztoc: Ztoc) -> str:
    lines = [
        f"{ztoc.compression} layer of {ztoc.compressed_size} bytes, {ztoc.uncompressed_size} uncompressed",
        f"{counted(ztoc.spans, 'span')} of {ztoc.span_size} bytes, {counted(len(ztoc.entries), 'entry', 'entries')}, "
        f"made by {ztoc.build_tool}",
    ]
    for entry in ztoc.entries:
        name = entry.name.decode(errors="backslashreplace")
        link = f" -> {entry.link.decode(errors='backslashreplace')}" if entry.link else ""
        lines.append(f"{entry.kind.decode():8} {entry.mode & 0o7777:04o} {entry.size:>12} {name}{link}")
    return "\n".join(lines)
