"""The files of a layer as a container sees them after all entries have been unpacked in order.

A name may occur several times; the last entry wins. A hard link refers to the file that its target is at that moment,
even if a later entry replaces the target. Symbolic links to folders of the same layer are followed inside the layer's
root. containerd (`archive.Apply`) and Docker do the same. `LayerTree.merge_over` adds more layers, from the lowest to
the topmost.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from soci_pipeline.soci.tar import entries as kinds
from soci_pipeline.soci.tar.entries import OPAQUE_WHITEOUT, WHITEOUT_PREFIX, Entry

_MOST_LINKS: Final = 40
_MOST_STEPS: Final = 4096  # path components for one entry, including those of symbolic links


@dataclass(slots=True)
class Folder:
    """A directory: its children by name. Its own tar entry is not needed."""

    children: "dict[bytes, Folder | Entry]" = field(default_factory=dict)


Node = Folder | Entry
"""A hard link is represented by the entry of its target; an entry of kind `HARDLINK` has no target in the layer."""


class LayerTree:
    """The file tree after unpacking the entries of a layer."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._root = Folder()
        # Cache of parent folders by path: most entries are in the same folder as the previous one.
        self._known: dict[bytes, Folder] = {}
        for entry in entries:
            self._add(entry)

    def merge_over(self, layer: "LayerTree") -> None:
        """Merge the tree of the next layer over this one, as an overlay file system does.

        Whiteouts hide files of lower layers, regardless of their position in their own layer (image-spec, layer.md). A
        folder replaces a symbolic link in a lower layer; the link is not followed.
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
                    # A hard link without a target in its own layer refers to a file in a lower layer.
                    lower.children[name] = self._linked(node) if node.kind == kinds.HARDLINK else node
                    continue
                below = lower.children.get(name)
                if not isinstance(below, Folder):
                    below = lower.children[name] = Folder()
                pending.append((below, node))

    def find(self, path: bytes) -> Node | None:
        """Return the node at a path, or None; a symbolic link in the last component is not followed."""
        parts = cleaned(path)
        if not parts:
            return self._root
        folder = self._walk(parts[:-1], make=False)
        return None if folder is None else folder.children.get(parts[-1])

    def _add(self, entry: Entry) -> None:
        parts = cleaned(entry.name)
        folder = self._folder_of(parts)
        # The parent is a regular file or a loop of links, so the entry cannot be unpacked.
        if folder is None:
            return
        name = parts[-1]
        if entry.kind == kinds.DIRECTORY and isinstance(folder.children.get(name), Folder):
            return
        # Remove an existing node first, so that a hard link to its own name has no target.
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
        """Return the folder at a path, following symbolic links; create missing folders if ``make`` is set."""
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
    """Split a path into components without ``.`` and empty ones; resolve ``..`` without leaving the root."""
    kept: list[bytes] = []
    for part in _parts(path):
        if part != b"..":
            kept.append(part)
        elif kept:
            kept.pop()
    return kept


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]
