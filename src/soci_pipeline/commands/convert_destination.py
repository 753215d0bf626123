"""Where `convert` writes: what it may replace, the scratch folder beside it, and the last step."""

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from soci_pipeline.errors import InvalidInput
from soci_pipeline.log import logger
from soci_pipeline.machine.working_folder import LOCK, NEW_LOCK, PREFIX, abandoned, working_folder
from soci_pipeline.oci.blob_writer import INCOMING
from soci_pipeline.oci.layout_replacement import REPLACED, foreign_entries, put_back
from soci_pipeline.oci.layout_replacement import put_in_place as replace_layout

_PURPOSE = "convert"
_RESULT = "result"
_SOURCE = "source"
_OWN_NAMES = frozenset({LOCK, NEW_LOCK, _RESULT, _SOURCE, REPLACED})
_SHOWN = 5


def check_destination(source: Path, destination: Path, *, cache: Path | None, force: bool) -> None:
    """Refuse what would be lost: anything without ``force``, and with it all that is not an OCI layout or empty.

    First, what runs that were killed left beside the destination is removed; that may return an earlier result.
    """
    if destination.parts[:1] and destination.parts[0].endswith(":"):
        raise InvalidInput(
            f"{as_address(destination)} is an address",
            advice="Name a folder for the result; `soci-pipeline push` sends it to a registry.",
        )
    _check_overlap(source, destination, cache)
    _remove_abandoned(destination.resolve().parent)
    if not destination.exists():
        return
    if not destination.is_dir() or not ((destination / "oci-layout").is_file() or not any(destination.iterdir())):
        raise InvalidInput(
            f"the destination {destination} exists and is no OCI layout, and --force replaces nothing else",
            advice="Choose another folder, or remove it yourself.",
        )
    _check_replaceable(destination, force=force)


def as_address(path: Path) -> str:
    """As the user wrote it: a path has no two slashes."""
    return re.sub(r"\A([a-z]+):/", r"\1://", str(path))


@contextlib.contextmanager
def scratch_beside(destination: Path) -> Iterator[Path]:
    """A folder on the destination's file system, so that the result can be moved and blobs linked.

    `put_in_place` expects the result in ``result``.
    """
    parent = destination.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        stack = contextlib.ExitStack()
        made = working_folder(parent, purpose=_PURPOSE, before_removal=lambda scratch: put_back(scratch, parent))
        folder = stack.enter_context(made)
    except OSError as error:
        raise InvalidInput(f"{parent} cannot be written: {error.strerror}") from error
    with stack:
        yield folder


def put_in_place(scratch: Path, destination: Path, *, force: bool) -> None:
    """Give the finished result its name; an earlier layout of that name is complete until then."""
    result = scratch / _RESULT
    # Where blobs were written before they had their names; the layout is finished.
    with contextlib.suppress(OSError):
        (result / INCOMING).rmdir()
    if destination.is_dir():
        # It may have been made, or something added to it, while layers were indexed.
        _check_replaceable(destination, force=force)
    try:
        replace_layout(result, destination, scratch)
    except OSError as error:
        raise InvalidInput(
            f"the result cannot be moved to {destination}: {error.strerror}",
            advice="Choose another folder; what is there is unchanged. A mount point cannot be replaced.",
        ) from error


def _check_overlap(source: Path, destination: Path, cache: Path | None) -> None:
    if destination.resolve() == source.resolve() or _is_same(source, destination):
        raise InvalidInput(f"{destination} is the source too", advice="Choose another folder for the result.")
    advice = "Choose a folder for the result that is outside of the source and does not contain it."
    if _lies_in(source, destination):
        raise InvalidInput(f"the source {source} lies inside the destination {destination}", advice=advice)
    if _lies_in(destination, source):
        raise InvalidInput(f"the destination {destination} lies inside the source {source}", advice=advice)
    if cache is not None and (_is_same(cache, destination) or _lies_in(cache, destination)):
        raise InvalidInput(
            f"--cache {cache} lies inside the destination {destination}", advice="Choose another folder for the cache."
        )


def _lies_in(inner: Path, outer: Path) -> bool:
    """Whether a path is below another one, by the files themselves: links and bind mounts have other names."""
    resolved, above = inner.resolve(), outer.resolve()
    return above in resolved.parents or any(_is_same(parent, above) for parent in resolved.parents)


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _check_replaceable(destination: Path, *, force: bool) -> None:
    if not force:
        raise InvalidInput(
            f"the destination {destination} exists", advice="Choose another folder, or replace it with --force."
        )
    found = list(itertools.islice(foreign_entries(destination), _SHOWN + 1))
    if found:
        shown = ", ".join(found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
        raise InvalidInput(
            f"the destination {destination} holds files that are not part of an OCI layout: {shown}",
            advice="Move them away, or choose another folder; --force deletes an OCI layout and nothing else.",
        )


def _remove_abandoned(parent: Path) -> None:
    """Remove the scratch folders of runs that were killed, and return an earlier layout that one had moved aside."""
    for folder in sorted(parent.glob(f"{PREFIX}{_PURPOSE}-*")):
        if not _is_scratch(folder):
            continue
        with abandoned(folder) as gone:
            if gone:
                _remove(folder, parent)


def _remove(folder: Path, parent: Path) -> None:
    try:
        put_back(folder, parent)
    except FileExistsError as error:
        logger().warning("%s: its name is in use again; move it elsewhere, or delete it", error.filename)
        return
    shutil.rmtree(folder, ignore_errors=True)
    logger().info("removed %s, left by a run that was killed", folder)


def _is_scratch(folder: Path) -> bool:
    """Whether a folder of that name is this user's and holds only what `convert` puts there."""
    try:
        if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
            return False
        names = {entry.name for entry in folder.iterdir()}
        return names <= _OWN_NAMES and not any((folder / name).is_symlink() for name in names)
    except OSError:
        # Another run removes it at this moment, or it cannot be read.
        return False
