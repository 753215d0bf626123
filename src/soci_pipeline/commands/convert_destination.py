"""The destination of `convert`: what it may replace, the scratch folder next to it, and the final rename."""

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
from soci_pipeline.oci.layout_replacement import REPLACED, foreign_entries, restore
from soci_pipeline.oci.layout_replacement import put_in_place as replace_layout

_PURPOSE = "convert"
_RESULT = "result"
_SOURCE = "source"
_OWN_NAMES = frozenset({LOCK, NEW_LOCK, _RESULT, _SOURCE, REPLACED})
_SHOWN = 5


def check_destination(source: Path, destination: Path, *, cache: Path | None, force: bool) -> None:
    """Reject a destination whose replacement would lose data.

    Without ``force`` that is anything; with it, anything other than an OCI layout or an empty folder. Leftovers of
    killed runs next to the destination are removed first, which may restore an earlier result.
    """
    if destination.parts[:1] and destination.parts[0].endswith(":"):
        raise InvalidInput(
            f"{as_address(destination)} is a URL",
            advice="Use a folder for the result, and send it to a registry with `soci-pipeline push`.",
        )
    _check_overlap(source, destination, cache)
    _remove_abandoned(destination.resolve().parent)
    if not destination.exists():
        return
    if not destination.is_dir() or not ((destination / "oci-layout").is_file() or not any(destination.iterdir())):
        raise InvalidInput(
            f"the destination {destination} exists and is not an OCI layout, the only thing that --force replaces",
            advice="Choose another folder, or delete it yourself.",
        )
    _check_replaceable(destination, force=force)


def as_address(path: Path) -> str:
    """Return the path as the user wrote it; a path has no double slashes."""
    return re.sub(r"\A([a-z]+):/", r"\1://", str(path))


@contextlib.contextmanager
def scratch_beside(destination: Path) -> Iterator[Path]:
    """Create a folder on the destination's file system, so that the result can be renamed and blobs can be linked.

    `put_in_place` expects the result in ``result``.
    """
    parent = destination.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        stack = contextlib.ExitStack()
        made = working_folder(parent, purpose=_PURPOSE, before_removal=lambda scratch: restore(scratch, parent))
        folder = stack.enter_context(made)
    except OSError as error:
        raise InvalidInput(f"{parent} cannot be written: {error.strerror}") from error
    with stack:
        yield folder


def put_in_place(scratch: Path, destination: Path, *, force: bool) -> None:
    """Rename the finished result; an earlier layout with that name stays complete until then."""
    result = scratch / _RESULT
    # The folder in which blobs were written before they got their names; the layout is finished.
    with contextlib.suppress(OSError):
        (result / INCOMING).rmdir()
    if destination.is_dir():
        # The destination may have been created or changed while layers were indexed.
        _check_replaceable(destination, force=force)
    try:
        replace_layout(result, destination, scratch)
    except OSError as error:
        raise InvalidInput(
            f"the result cannot be moved to {destination}: {error.strerror}",
            advice="Choose another folder; the existing one is unchanged. A mount point cannot be replaced.",
        ) from error


def _check_overlap(source: Path, destination: Path, cache: Path | None) -> None:
    if destination.resolve() == source.resolve() or _is_same(source, destination):
        raise InvalidInput(f"{destination} is also the source", advice="Choose another folder for the result.")
    advice = "Choose a folder that is outside the source and does not contain it."
    if _is_inside(source, destination):
        raise InvalidInput(f"the source {source} lies inside the destination {destination}", advice=advice)
    if _is_inside(destination, source):
        raise InvalidInput(f"the destination {destination} lies inside the source {source}", advice=advice)
    if cache is not None and (_is_same(cache, destination) or _is_inside(cache, destination)):
        raise InvalidInput(
            f"--cache {cache} lies inside the destination {destination}", advice="Choose another folder for the cache."
        )


def _is_inside(inner: Path, outer: Path) -> bool:
    """Whether a path is below another one, by file identity: links and bind mounts have different names."""
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
            f"the destination {destination} contains files that are not part of an OCI layout: {shown}",
            advice="Move them, or choose another folder; --force deletes only an OCI layout.",
        )


def _remove_abandoned(parent: Path) -> None:
    """Remove the scratch folders of killed runs, and restore an earlier layout that one of them had moved aside."""
    for folder in sorted(parent.glob(f"{PREFIX}{_PURPOSE}-*")):
        if not _is_scratch(folder):
            continue
        with abandoned(folder) as gone:
            if gone:
                _remove(folder, parent)


def _remove(folder: Path, parent: Path) -> None:
    try:
        restore(folder, parent)
    except FileExistsError as error:
        logger().warning(
            "%s was kept because its name is in use again; move it elsewhere, or delete it", error.filename
        )
        return
    shutil.rmtree(folder, ignore_errors=True)
    logger().info("removed %s, left over from a killed run", folder)


def _is_scratch(folder: Path) -> bool:
    """Whether a scratch folder belongs to this user and contains only what `convert` writes there."""
    try:
        if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
            return False
        names = {entry.name for entry in folder.iterdir()}
        return names <= _OWN_NAMES and not any((folder / name).is_symlink() for name in names)
    except OSError:
        # Another run is removing it, or it is not readable.
        return False
