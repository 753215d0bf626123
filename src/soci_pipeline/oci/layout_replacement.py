"""Puts a finished layout in the place of an earlier one, so that a complete one has that name at every moment.

Linux exchanges two names in one step (renameat2 with RENAME_EXCHANGE). Where the file system cannot, the earlier layout
is first moved aside, into the scratch folder. `put_back` returns it from there if the process ended between the two
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
"""The folder in the scratch folder that takes the earlier layout where names cannot be exchanged."""

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_CANNOT = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})
_OWN_FILES = frozenset({"oci-layout", "index.json"})
_INCOMPLETE_BLOBS = frozenset({".incoming", "ingest"})
_ALGORITHMS = {SHA256: 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+\Z")


def put_in_place(new: Path, destination: Path, scratch: Path) -> None:
    """Give ``new`` the name ``destination``; what had it is in ``scratch`` afterwards, which must be beside it."""
    if not destination.exists():
        new.rename(destination)
    elif not exchange(new, destination):
        _replace_in_two_steps(new, destination, scratch)


def put_back(scratch: Path, parent: Path) -> None:
    """Return a layout that was moved aside in ``scratch`` to ``parent``.

    Raises `FileExistsError` where its name is in use again; it stays in ``scratch`` then.
    """
    aside = scratch / REPLACED
    for earlier in aside.iterdir() if aside.is_dir() else ():
        if os.path.lexists(parent / earlier.name):
            raise FileExistsError(errno.EEXIST, f"the earlier {earlier.name} is kept here", str(earlier))
        earlier.rename(parent / earlier.name)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
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
    """What a folder holds that is not part of an OCI layout, as paths relative to it."""
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
        put_back(scratch, destination.parent)
        raise
    # From here on it is not to be returned.
    (scratch / REPLACED).rename(new)
