"""Validation of the hard links of layers, resolved like an extractor does: in tar order, within one layer.

A hard link can only be created after its target. A target in a lower layer does not count: with overlay file systems,
the default of containerd, Docker and the SOCI snapshotter, each layer is unpacked into a separate empty folder
(containerd, diff/apply/apply_linux.go), and creating the link fails. Layers written by a runtime contain the target as
well, because a new link changes its file. `may_be_broken` resolves nearly all layers by names only; for the others, the
extraction is simulated, also by names only.
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
"""Function that returns the entries of one layer of an image, or None if they cannot be read."""


class EntryScan:
    """Collects the entries of a streamed tar, unless it cannot be parsed or takes too much memory."""

    def __init__(self) -> None:
        self._scanner: TarScanner | None = TarScanner()

    def feed(self, piece: bytes) -> None:
        """Parse the next bytes of the tar."""
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
        """The entries so far, or None if they cannot be read."""
        return None if self._scanner is None else self._scanner.entries


def may_be_broken(entries: Sequence[Entry]) -> bool:
    """Whether a hard link has no earlier file with its target's name in the same layer."""
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
    """Add a finding for every hard link that cannot be created; ``suspects`` are the layers that may have one."""
    for image in graph.images:
        for layer in {each.digest: each for each in image.manifest.layers if each.digest in suspects}.values():
            lines = _broken_links(read(image, layer))
            if lines is None:
                findings.count("hard_links_unread")
            else:
                _note(f"{image.platform} layer {layer.digest}", lines, findings)


def _broken_links(entries: Sequence[Entry] | None) -> list[str] | None:
    """Return a line for each hard link that cannot be created, or None if the layer cannot be checked."""
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
    """Resolving the paths would take minutes, because the image is crafted to have very many and very deep ones."""


class _Extraction:
    """Simulated extraction of one layer: maps its files to the targets of symlinks (empty for others)."""

    def __init__(self) -> None:
        self._files: dict[bytes, bytes] = {}
        self._steps = 0

    def run(self, entries: Sequence[Entry]) -> Iterator[str]:
        """Simulate the extraction; yield a line for each hard link that cannot be created."""
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
        """Return the target of the symlink at a path, empty for another file, or None if there is no file."""
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise _TooMuch
        return None if len(path) > _MAX_PATH else self._files.get(path)

    def _resolved(self, name: bytes) -> bytes:
        """Resolve symlinks in the parent folders of a path, inside the root; the last component is not followed."""
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
    why = "comes later in the layer" if comes_later else "does not precede it in its layer"
    return f"its hard link {shown(entry.name)} cannot be unpacked: the target {shown(entry.link)} {why}"


def _cleaned(name: bytes) -> bytes:
    return posixpath.normpath(b"/" + name.lstrip(b"/"))


def _parents(path: bytes) -> Iterator[bytes]:
    """Yield the parent folders of a path, the innermost first."""
    at = path.rfind(b"/")
    while at > 0:
        yield path[:at]
        at = path.rfind(b"/", 0, at)
