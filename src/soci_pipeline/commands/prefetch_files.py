"""The options for files to prefetch: single paths, or the JSON list that `soci convert` reads."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

from soci_pipeline.commands.command import Arguments, combine
from soci_pipeline.errors import InvalidInput

MAX_FILE_BYTES: Final = 16 << 20
MAX_FILES: Final = 100_000
MAX_PATH_BYTES: Final = 4096  # Linux's PATH_MAX

_ADVICE: Final = 'The file must hold a JSON array of paths, such as ["/usr/bin/app", "/etc/app.conf"].'
_SHOWN: Final = 60


options = combine(
    click.option(
        "--prefetch-file",
        multiple=True,
        metavar="PATH",
        help="fetch this file of the image first; may be repeated, or a comma-separated list",
    ),
    click.option(
        "--prefetch-files-json",
        metavar="FILE",
        help="fetch the files listed in FILE first, a JSON array; - is standard input",
    ),
)
"""``--prefetch-file`` and ``--prefetch-files-json``."""


def prefetch_files_of(arguments: Arguments) -> tuple[str, ...]:
    """Return the paths of the options, stripped and without empty ones.

    Raises `InvalidInput` for a file that cannot be read or is not such a list.
    """
    listed = _trimmed(path for item in arguments.prefetch_file for path in item.split(","))
    source = arguments.prefetch_files_json
    return listed if source is None else (*listed, *_from_json(source))


def _trimmed(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(stripped for path in paths if (stripped := path.strip()))


def _from_json(source: str) -> tuple[str, ...]:
    where = "--prefetch-files-json " + ("standard input" if source == "-" else source)
    try:
        value = json.loads(_content(source, where).decode())
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{where} is not UTF-8: {error.reason} at byte {error.start}", advice=_ADVICE) from error
    except RecursionError as error:
        raise InvalidInput(f"{where} is nested too deeply", advice=_ADVICE) from error
    except ValueError as error:
        raise InvalidInput(f"{where} is not valid JSON: {error}", advice=_ADVICE) from error
    if not isinstance(value, list):
        raise InvalidInput(f"{where} must hold a JSON array, not {_kind(value)}", advice=_ADVICE)
    if len(value) > MAX_FILES:
        raise InvalidInput(f"{where} names {len(value):,} files; at most {MAX_FILES:,} are allowed")
    return _trimmed(_checked(path, f"{where}: element {number}") for number, path in enumerate(value, start=1))


def _content(source: str, where: str) -> bytes:
    try:
        if source == "-":
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the name, or a closed standard input.
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InvalidInput(
            f"{where} cannot be read: {reason}", advice="Check the file's name and permissions."
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise InvalidInput(f"{where} is larger than {MAX_FILE_BYTES >> 20} MiB, which is the limit")
    return data


def _checked(path: object, where: str) -> str:
    if not isinstance(path, str):
        raise InvalidInput(f"{where} must be a string, not {_kind(path)}", advice=_ADVICE)
    try:
        size = len(path.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{where} is not valid Unicode: {path[:_SHOWN]!r}", advice=_ADVICE) from error
    if size > MAX_PATH_BYTES:
        raise InvalidInput(f"{where} is {size:,} bytes long; a path has at most {MAX_PATH_BYTES:,}", advice=_ADVICE)
    if "\0" in path:
        raise InvalidInput(f"{where} contains a NUL: {path[:_SHOWN]!r}", advice=_ADVICE)
    return path


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
