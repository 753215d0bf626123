"""FIFOs, sockets and devices in a work tree, at places that git or a builder opens: reading them may never end."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from soci_pipeline.errors import InvalidInput

_OPENED = frozenset({".gitignore", ".gitattributes", ".gitmodules"})
_OPENED_BY_BUILDERS = ".dockerignore"
_GIT = ".git"
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def special_kind(path: str | Path, *, follow: bool = True) -> str | None:
    """Return ``a FIFO``, ``a socket`` or the like for what a path leads to; None for anything else, or nothing."""
    try:
        return _KINDS.get(stat.S_IFMT(Path(path).stat(follow_symlinks=follow).st_mode))
    except OSError:
        return None


def check_special_files(folder: Path) -> None:
    """Raise `InvalidInput` for a special file that git or a builder would open in a folder of a work tree.

    Checks the folder, the folders above it up to the top of the work tree, and the repository's own files.
    """
    for path, kind in _found(folder):
        if kind is not None:
            raise InvalidInput(
                f"SOURCE: {path} is not a regular file, but {kind}", advice="Remove it, or replace it with a file."
            )


def _found(folder: Path) -> Iterator[tuple[str, str | None]]:
    yield from _below(str(folder))
    for parent in folder.parents if not (folder / _GIT).exists() else ():
        paths = (str(parent / name) for name in _OPENED)
        yield from ((path, special_kind(path, follow=False)) for path in paths)
        if (parent / _GIT).exists():
            yield from _below(str(parent / _GIT), in_repository=True)
            return


def _below(top: str, *, in_repository: bool = False) -> Iterator[tuple[str, str | None]]:
    """Yield the files that git or a builder opens, with their kind: a few of a work tree, all of a repository."""
    left = [(top, in_repository)]
    while left:
        folder, is_gits = left.pop()
        for entry in _entries(folder):
            if entry.is_dir(follow_symlinks=False):
                left.append((entry.path, is_gits or entry.name == _GIT))
            elif is_gits and not entry.is_file(follow_symlinks=False):
                # git follows links here. Its own sockets stay: opening one fails at once.
                kind = special_kind(entry.path)
                yield entry.path, None if kind == _KINDS[stat.S_IFSOCK] else kind
            elif not is_gits and (entry.name in _OPENED or entry.name.endswith(_OPENED_BY_BUILDERS)):
                yield entry.path, special_kind(entry.path, follow=False)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Return what a folder has; nothing where it cannot be listed, which git reports itself."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
