"""The files of one layer as a container sees them once all its entries are unpacked in their order.

A name may come several times; the last entry counts. A hard link is another name of the file that its target is at that
moment, and stays so when the target's own name is given to another file later. Folders that are reached through
symbolic links of the same layer are followed, inside the layer's root. containerd (`archive.Apply`) and Docker do the
same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from soci_pipeline.soci import entries as kinds
from soci_pipeline.soci.entries import Entry

_MOST_LINKS: Final = 40


@dataclass(slots=True)
class Folder:
    """A directory by the names in it; its own entry does not matter here."""

    children: "dict[bytes, Folder | Entry]" = field(default_factory=dict)


Node = Folder | Entry
"""A hard link is the entry of its file; an entry of kind hard link is one whose target was not there before it."""


class LayerTree:
    """The tree that the entries of a layer unpack to."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._root = Folder()
        for entry in entries:
            self._add(entry)

    def find(self, path: bytes) -> Node | None:
        """What a path leads to; a symbolic link at its end is not followed. None where there is nothing."""
        parts = cleaned(path)
        if not parts:
            return self._root
        folder = self._walk(parts[:-1], make=False)
        return None if folder is None else folder.children.get(parts[-1])

    def _add(self, entry: Entry) -> None:
        parts = cleaned(entry.name)
        folder = self._walk(parts[:-1], make=True)
        # Below a regular file, or behind a circle of links, nothing can be unpacked.
        if folder is None or not parts:
            return
        name = parts[-1]
        if entry.kind == kinds.DIRECTORY:
            if not isinstance(folder.children.get(name), Folder):
                folder.children[name] = Folder()
            return
        # What had the name goes first: a link to itself has no target any more.
        folder.children.pop(name, None)
        folder.children[name] = self._linked(entry) if entry.kind == kinds.HARDLINK else entry

    def _linked(self, entry: Entry) -> Entry:
        target = self.find(entry.link)
        return target if isinstance(target, Entry) else entry

    def _walk(self, parts: Sequence[bytes], *, make: bool) -> Folder | None:
        """The folder that a path leads to, its symbolic links followed; folders that are missing may be made."""
        pending = list(reversed(parts))
        path, links = [self._root], 0
        while pending:
            part = pending.pop()
            if part == b"..":
                del path[max(1, len(path) - 1) :]
                continue
            node = path[-1].children.get(part)
            if node is None and make:
                node = path[-1].children[part] = Folder()
            if isinstance(node, Folder):
                path.append(node)
                continue
            links += 1
            if node is None or node.kind != kinds.SYMLINK or links > _MOST_LINKS:
                return None
            if node.link.startswith(b"/"):
                del path[1:]
            pending += reversed(_parts(node.link))
        return path[-1]


def cleaned(path: bytes) -> list[bytes]:
    """The parts of a path without empty ones and ``.``; ``..`` takes one away, and never leads above the root."""
    kept: list[bytes] = []
    for part in _parts(path):
        if part != b"..":
            kept.append(part)
        elif kept:
            kept.pop()
    return kept


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]
