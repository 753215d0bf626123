"""The files of one layer as a container sees them once all its entries are unpacked in their order.

A name may come several times; the last entry counts. A hard link is another name of the file that its target is at that
moment, and stays so when the target's own name is given to another file later. Folders that are reached through
symbolic links of the same layer are followed, inside the layer's root. containerd (`archive.Apply`) and Docker do the
same. `LayerTree.put_above` adds further layers, from the lowest to the topmost.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from soci_pipeline.soci.tar import entries as kinds
from soci_pipeline.soci.tar.entries import OPAQUE_WHITEOUT, WHITEOUT_PREFIX, Entry

_MOST_LINKS: Final = 40
_MOST_STEPS: Final = 4096  # folders on the way to one entry, those behind links included


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
        # The folders of entries so far: most entries lie in the folder of the one before.
        self._known: dict[bytes, Folder] = {}
        for entry in entries:
            self._add(entry)

    def put_above(self, layer: "LayerTree") -> None:
        """Lay the tree of a further layer over this one, as an overlay file system does.

        Whiteouts hide what lower layers have, wherever they stand in their own layer (image-spec, layer.md). A folder
        takes the place of a symbolic link below it; the link is not followed.
        """
        self._known.clear()
        pending = [(self._root, layer._root)]
        while pending:
            lower, upper = pending.pop()
            _hide(lower, upper)
            for name, node in upper.children.items():
                if name.startswith(WHITEOUT_PREFIX):
                    continue
                if isinstance(node, Entry):
                    # A hard link that is left is one to a file of a lower layer.
                    lower.children[name] = self._linked(node) if node.kind == kinds.HARDLINK else node
                    continue
                below = lower.children.get(name)
                if not isinstance(below, Folder):
                    below = lower.children[name] = Folder()
                pending.append((below, node))

    def find(self, path: bytes) -> Node | None:
        """What a path leads to; a symbolic link at its end is not followed. None where there is nothing."""
        parts = cleaned(path)
        if not parts:
            return self._root
        folder = self._walk(parts[:-1], make=False)
        return None if folder is None else folder.children.get(parts[-1])

    def _add(self, entry: Entry) -> None:
        parts = cleaned(entry.name)
        folder = self._folder_of(parts)
        # Below a regular file, or behind a circle of links, nothing can be unpacked.
        if folder is None:
            return
        name = parts[-1]
        if entry.kind == kinds.DIRECTORY and isinstance(folder.children.get(name), Folder):
            return
        # What had the name goes first: a link to itself has no target any more.
        earlier = folder.children.pop(name, None)
        if isinstance(earlier, Folder) or (earlier is not None and earlier.kind == kinds.SYMLINK):
            self._known.clear()
        if entry.kind == kinds.DIRECTORY:
            folder.children[name] = Folder()
            return
        folder.children[name] = self._linked(entry) if entry.kind == kinds.HARDLINK else entry

    def _folder_of(self, parts: Sequence[bytes]) -> Folder | None:
        if not parts:
            return None
        above = b"/".join(parts[:-1])
        folder = self._known.get(above)
        if folder is None and (folder := self._walk(parts[:-1], make=True)) is not None:
            self._known[above] = folder
        return folder

    def _linked(self, entry: Entry) -> Entry:
        target = self.find(entry.link)
        return target if isinstance(target, Entry) else entry

    def _walk(self, parts: Sequence[bytes], *, make: bool) -> Folder | None:
        """The folder that a path leads to, its symbolic links followed; folders that are missing may be made."""
        pending = list(reversed(parts))
        path, links, steps = [self._root], 0, len(pending)
        while pending:
            part = pending.pop()
            if steps > _MOST_STEPS:
                return None
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
            behind = _parts(node.link)
            steps += len(behind)
            pending += reversed(behind)
        return path[-1]


def _hide(lower: Folder, upper: Folder) -> None:
    if OPAQUE_WHITEOUT in upper.children:
        lower.children.clear()
    for name in upper.children:
        if name.startswith(WHITEOUT_PREFIX):
            lower.children.pop(name.removeprefix(WHITEOUT_PREFIX), None)


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
