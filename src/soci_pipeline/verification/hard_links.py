"""Hard links of layers, resolved as an extractor does: in tar order, within one layer.

A link cannot be made before its target is there. A target in a layer below does not count: with overlay file systems,
which are the default of containerd, Docker and the SOCI snapshotter, each layer is unpacked into an empty folder of its
own (containerd, diff/apply/apply_linux.go), and making the link fails. Layers that a runtime writes hold the target
too, since a new link changes its file. Nearly all layers resolve by name alone, which `may_be_broken` sees; the others
are extracted here, by their names.
"""

import posixpath
from collections.abc import Callable, Iterator, Sequence

from soci_pipeline.archive.tar_headers import BadHeader
from soci_pipeline.images.findings import Findings
from soci_pipeline.images.graph import ImageGraph, ImageNode
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.limits import DEFAULT_LIMITS
from soci_pipeline.soci.tar.entries import DIRECTORY, HARDLINK, SYMLINK, Entry
from soci_pipeline.soci.tar.stream import OversizedHeader, TarScanner
from soci_pipeline.soci.ztoc.sample import shown

_WHITEOUT = b".wh."
_NAMED = 5
_MAX_SYMLINKS = 40
_MAX_PATH = 4096  # Linux's PATH_MAX: nothing can be extracted to a longer path
_MAX_STEPS = 20_000_000
_MAX_COST = DEFAULT_LIMITS.ztoc // 4

ReadEntries = Callable[[ImageNode, Descriptor], Sequence[Entry] | None]
"""The entries of one layer of an image; None where they cannot be read."""


class EntryScan:
    """Collects the entries of a tar that goes by, unless it cannot be read or takes too much memory."""

    def __init__(self) -> None:
        self._scanner: TarScanner | None = TarScanner()

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the tar."""
        if self._scanner is None:
            return
        try:
            self._scanner.feed(piece, len(piece))
        except (BadHeader, OversizedHeader):
            self._scanner = None
            return
        if self._scanner.refusal is not None or self._scanner.cost > _MAX_COST:
            self._scanner = None

    @property
    def entries(self) -> Sequence[Entry] | None:
        """The entries so far; None where they cannot be read."""
        return None if self._scanner is None else self._scanner.entries


def may_be_broken(entries: Sequence[Entry]) -> bool:
    """Whether some hard link has no file of its target's name before it in its own layer."""
    targets = {_cleaned(entry.link) for entry in entries if entry.kind == HARDLINK}
    if not targets:
        return False
    there = set[bytes]()
    for entry in entries:
        path = _cleaned(entry.name)
        if entry.kind == HARDLINK and _cleaned(entry.link) not in there:
            return True
        folder, name = posixpath.split(path)
        if name.startswith(_WHITEOUT):
            there.discard(posixpath.join(folder, name.removeprefix(_WHITEOUT)))
        elif entry.kind == DIRECTORY:
            there.discard(path)
        elif path in targets:
            there.add(path)
    return False


def check_hard_links(graph: ImageGraph, suspects: set[Digest], read: ReadEntries, findings: Findings) -> None:
    """Note every hard link that cannot be made; ``suspects`` are the layers that may have one."""
    for image in graph.images:
        for layer in {each.digest: each for each in image.manifest.layers if each.digest in suspects}.values():
            lines = _broken_links(read(image, layer))
            if lines is None:
                findings.count("hard_links_unread")
            else:
                _note(f"{image.platform} layer {layer.digest}", lines, findings)


def _broken_links(entries: Sequence[Entry] | None) -> list[str] | None:
    """A line for each hard link that cannot be made; None where that cannot be found out."""
    if entries is None:
        return None
    try:
        return [*_Extraction().run(entries)]
    except _TooMuch:
        return None


def _note(where: str, lines: Sequence[str], findings: Findings) -> None:
    for line in lines[:_NAMED]:
        findings.add(where, line)
    if len(lines) > _NAMED:
        findings.add(where, f"and {len(lines) - _NAMED} more hard links without a target")


class _TooMuch(Exception):
    """Paths so many and so deep that resolving them would take minutes, as only a crafted image has them."""


class _Extraction:
    """One layer while it is unpacked: its files, with the targets of symlinks (empty for others)."""

    def __init__(self) -> None:
        self._files: dict[bytes, bytes] = {}
        self._steps = 0

    def run(self, entries: Sequence[Entry]) -> Iterator[str]:
        """Unpack the layer; yields a line for each hard link that cannot be made."""
        broken: list[tuple[Entry, bytes]] = []
        for entry in entries:
            path = self._resolved(entry.name)
            folder, name = posixpath.split(path)
            if entry.kind == HARDLINK:
                target = self._resolved(entry.link)
                found = self._file(target)
                if found is None:
                    broken.append((entry, target))
                self._files[path] = found or b""
            elif name.startswith(_WHITEOUT):
                self._files.pop(posixpath.join(folder, name.removeprefix(_WHITEOUT)), None)
            elif entry.kind == DIRECTORY:
                self._files.pop(path, None)
            else:
                self._files[path] = entry.link if entry.kind == SYMLINK else b""
        links = {self._resolved(entry.name) for entry, _ in broken}
        for entry, target in broken:
            yield _line(entry, comes_later=target in self._files and target not in links)

    def _file(self, path: bytes) -> bytes | None:
        """The target of the symlink at a path, empty for another file; None where there is no file."""
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise _TooMuch
        return None if len(path) > _MAX_PATH else self._files.get(path)

    def _resolved(self, name: bytes) -> bytes:
        """Where a name leads: symlinks among its folders are followed, inside the root; the last part is not."""
        path = _cleaned(name)
        for _ in range(_MAX_SYMLINKS):
            if len(path) > _MAX_PATH:
                return path
            step = next(((each, to) for each in reversed([*_parents(path)]) if (to := self._file(each))), None)
            if step is None:
                return path
            folder, to = step
            path = _cleaned(posixpath.join(posixpath.dirname(folder), to) + path[len(folder) :])
        return path


def _line(entry: Entry, *, comes_later: bool) -> str:
    why = "comes later in the layer" if comes_later else "is not before it in its layer"
    return f"its hard link {shown(entry.name)} cannot be unpacked: the target {shown(entry.link)} {why}"


def _cleaned(name: bytes) -> bytes:
    return posixpath.normpath(b"/" + name.lstrip(b"/"))


def _parents(path: bytes) -> Iterator[bytes]:
    """The folders of a path, the innermost first."""
    at = path.rfind(b"/")
    while at > 0:
        yield path[:at]
        at = path.rfind(b"/", 0, at)
