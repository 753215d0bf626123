"""Replace an existing layout by a finished one, atomically if the file system supports it.

Linux exchanges two names atomically (renameat2 with RENAME_EXCHANGE). If the file system does not support that, the
earlier layout is first moved to the scratch folder. `restore` restores it if the process ended between the two
renames.
"""

import ctypes
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from soci_pipeline.oci.digest import SHA256

REPLACED = "replaced"
"""Subfolder of the scratch folder for the earlier layout, used if names cannot be exchanged."""

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_CANNOT = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})
_OWN_FILES = frozenset({"oci-layout", "index.json"})
_INCOMPLETE_BLOBS = frozenset({".incoming", "ingest"})
_ALGORITHMS = {SHA256: 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+\Z")


def put_in_place(new: Path, destination: Path, scratch: Path) -> None:
    """Rename ``new`` to ``destination``; an existing ``destination`` takes its place in ``scratch``.

    ``scratch`` is the folder that contains ``new`` and must be next to ``destination``.
    """
    if not destination.exists():
        new.rename(destination)
    elif not exchange(new, destination):
        _replace_in_two_steps(new, destination, scratch)


def restore(scratch: Path, parent: Path) -> None:
    """Move a layout that was set aside in ``scratch`` back to ``parent``.

    Raises `FileExistsError`, and leaves the layout in ``scratch``, if its name is in use again.
    """
    aside = scratch / REPLACED
    for earlier in aside.iterdir() if aside.is_dir() else ():
        if os.path.lexists(parent / earlier.name):
            raise FileExistsError(errno.EEXIST, f"the earlier {earlier.name} is kept here", str(earlier))
        earlier.rename(parent / earlier.name)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically; return False if the system or the file system does not support it."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))


def foreign_entries(layout: Path) -> Iterator[str]:
    """Yield the relative paths of everything in a folder that is not part of an OCI layout."""
    for entry in _sorted(layout):
        if entry.name in _OWN_FILES:
            is_own = entry.is_file(follow_symlinks=False)
        elif entry.name in _INCOMPLETE_BLOBS:
            is_own = entry.is_dir(follow_symlinks=False)
        elif entry.name == "blobs" and entry.is_dir(follow_symlinks=False):
            yield from _foreign_blobs(layout)
            is_own = True
        else:
            is_own = False
        if not is_own:
            yield entry.name


def _foreign_blobs(layout: Path) -> Iterator[str]:
    for folder in _sorted(layout / "blobs"):
        length = _ALGORITHMS.get(folder.name)
        if length is None or not folder.is_dir(follow_symlinks=False):
            yield f"blobs/{folder.name}"
            continue
        for blob in _sorted(Path(folder.path)):
            is_blob = len(blob.name) == length and _HEX.match(blob.name) and not blob.is_dir(follow_symlinks=False)
            if not is_blob:
                yield f"blobs/{folder.name}/{blob.name}"


def _sorted(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _replace_in_two_steps(new: Path, destination: Path, scratch: Path) -> None:
    (scratch / REPLACED).mkdir()
    try:
        destination.rename(scratch / REPLACED / destination.name)
        new.rename(destination)
    except BaseException:
        restore(scratch, destination.parent)
        raise
    # The replacement is complete: move the earlier layout where `restore` does not find it.
    (scratch / REPLACED).rename(new)
