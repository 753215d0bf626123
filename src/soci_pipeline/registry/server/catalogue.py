"""The manifests and tags of one repository: in memory, in ``index.json``, and in a journal of later changes.

``index.json`` has an entry for every tag and every untagged manifest, so writing it takes time in proportion to the
size of the repository. Up to `SMALL` manifests and tags, every change rewrites it. Above that, every change appends a
line to ``.journal``, and ``index.json`` is written in the background and when the catalogue is closed. Applying the
journal again to an ``index.json`` that already has its changes gives the same result, so the process may be killed
between any two steps.
"""

import contextlib
import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from soci_pipeline.errors import DamagedContent, DiskFull, InvalidInput
from soci_pipeline.full_disk import write_all
from soci_pipeline.log import logger
from soci_pipeline.oci import canonical_json
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.registry.server.files import fresh_file, full_disk_reported, sync_file

TAG = "org.opencontainers.image.ref.name"
SMALL = 128
_FLUSH_SECONDS = 0.5
_FLUSHED_PER_SECOND = 10_000


class Catalogue:
    """The manifests and tags of one repository. Thread-safe, but only one process at a time may change it.

    After `DiskFull` or `OSError`, nothing has changed. ``sync`` waits until each change is on the disk. ``folder_lock``
    is referenced so that the lock is held as long as there is background work.
    """

    def __init__(self, folder: Path, *, sync: bool = False, folder_lock: object = None) -> None:
        self._folder_lock = folder_lock
        self._folder = folder
        self._index = folder / "index.json"
        self._journal = folder / ".journal"
        self._sync = sync
        self._lock = threading.RLock()
        self._flushing = threading.Lock()
        self._timer: threading.Timer | None = None
        self._closed = False
        # What was last read or written: inode, mtime and size of index.json, and how many bytes of the journal.
        self._mark: tuple[int, int, int] | None = None
        self._journalled = 0
        self._generation = 0
        self._manifests: dict[Digest, Descriptor] = {}
        self._tags: dict[str, Descriptor] = {}
        self._tags_of: dict[Digest, set[str]] = {}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock for several calls; first reload ``index.json`` if another program has changed it."""
        with self._lock:
            self._refresh()
            yield

    def __len__(self) -> int:
        """Return the number of manifests and tags."""
        with self.locked():
            return len(self._manifests) + len(self._tags)

    def manifest(self, reference: str) -> Descriptor | None:
        """Return the descriptor of a manifest, without annotations, by tag or digest, or None."""
        with self.locked():
            found = self._tags.get(reference)
            digest = reference if found is None else found.digest
            listed = self._manifests.get(digest)  # type: ignore[call-overload]
            return None if listed is None else listed.plain

    def manifests(self) -> tuple[Descriptor, ...]:
        """Return the descriptors of all manifests."""
        with self.locked():
            return tuple(self._manifests.values())

    def tags(self) -> tuple[str, ...]:
        """Return all tags in lexical order."""
        with self.locked():
            names = list(self._tags)
        return tuple(sorted(names))

    def put(self, descriptor: Descriptor, tags: Iterable[str]) -> None:
        """Add a manifest and point tags at it."""
        self._change({"put": descriptor.to_json(), "tags": list(tags)})

    def delete_tag(self, tag: str) -> None:
        """Remove a tag; its manifest stays."""
        self._change({"untag": tag})

    def delete_manifest(self, digest: Digest) -> None:
        """Remove a manifest and its tags."""
        self._change({"delete": str(digest)})

    def flush(self, *, background: bool = False) -> None:
        """Write ``index.json`` and remove the journal entries that it contains."""
        with self._flushing, full_disk_reported(self._folder):
            if background and self._closed:
                # Another server may use the folder by now.
                return
            with self.locked():
                entries, end, generation = self._entries(), self._journalled, self._generation
            if not end:
                return
            with fresh_file(self._index, _encoded(entries), sync=self._sync) as fresh, self._lock:
                # If another program has replaced index.json, keep it; the journal still has every change.
                if self._generation == generation:
                    self._take(fresh)
                    self._shorten_journal(end)

    def close(self) -> None:
        """Flush and stop the background work."""
        with self._lock:
            self._closed = True
            self._stop_timer()
        if self._mark is not None:
            self.flush()

    def _change(self, record: dict[str, Any]) -> None:
        with full_disk_reported(self._folder), self.locked():
            if self._journalled or len(self._manifests) + len(self._tags) > SMALL:
                self._append(canonical_json.encode(record) + b"\n")
                self._apply(record)
                self._flush_later()
                return
            self._apply(record)
            try:
                with fresh_file(self._index, _encoded(self._entries()), sync=self._sync) as fresh:
                    self._take(fresh)
            except BaseException:
                # The change is in memory but not on the disk: force a reload.
                self._mark = None
                raise

    def _take(self, fresh: Path) -> None:
        fresh.replace(self._index)
        self._mark = _mark_of(self._index)
        if self._sync:
            sync_file(self._folder)

    def _apply(self, record: dict[str, Any]) -> None:
        if "put" in record:
            descriptor = Descriptor.from_json(record["put"])
            self._manifests[descriptor.digest] = descriptor
            for tag in record["tags"]:
                self._point(tag, descriptor.annotated(annotations={TAG: tag}))
        elif "untag" in record:
            self._unpoint(record["untag"])
        else:
            digest = Digest(record["delete"])
            for tag in tuple(self._tags_of.get(digest, ())):
                self._unpoint(tag)
            self._manifests.pop(digest, None)

    def _point(self, tag: str, descriptor: Descriptor) -> None:
        self._unpoint(tag)
        self._tags[tag] = descriptor
        self._tags_of.setdefault(descriptor.digest, set()).add(tag)

    def _unpoint(self, tag: str) -> None:
        old = self._tags.pop(tag, None)
        if old is None:
            return
        self._tags_of[old.digest].discard(tag)
        if not self._tags_of[old.digest]:
            del self._tags_of[old.digest]

    def _entries(self) -> list[Descriptor]:
        """Return the entries of ``index.json``: one per tag, and one per untagged manifest."""
        untagged = (entry for digest, entry in self._manifests.items() if digest not in self._tags_of)
        return [*untagged, *self._tags.values()]

    def _refresh(self) -> None:
        try:
            mark = _mark_of(self._index)
        except FileNotFoundError as error:
            raise DamagedContent(f"{self._index} is missing") from error
        if mark == self._mark:
            return
        entries = _read(self._index)
        self._generation += 1
        self._manifests, self._tags, self._tags_of = {}, {}, {}
        for entry in entries:
            self._list(entry)
        self._replay()
        self._mark = mark

    def _list(self, entry: Descriptor) -> None:
        tag = entry.annotations.get(TAG)
        if tag is None:
            self._manifests[entry.digest] = entry
            return
        self._manifests.setdefault(entry.digest, entry.plain)
        if tag not in self._tags:
            self._point(tag, entry)

    def _replay(self) -> None:
        self._journalled = 0
        lines = _lines(self._journal)
        for position, line in enumerate(lines):
            record = _record(line)
            if record is None:
                self._check_last(position, lines)
                break
            self._apply(record)
            self._journalled += len(line)
        if self._journalled:
            self._flush_later()

    def _check_last(self, position: int, lines: list[bytes]) -> None:
        """Ignore an incomplete last change; raise `DamagedContent` if complete changes follow it.

        The last change is incomplete if the process was killed or the disk was full; its push was not acknowledged.
        """
        if any(_record(line) is not None for line in lines[position + 1 :]):
            # Continuing would overwrite acknowledged changes.
            raise DamagedContent(
                f"{self._journal} is damaged in line {position + 1}",
                advice="Restore it from a backup, or move it away to continue with what index.json lists.",
            )
        logger().warning("%s ends in an incomplete change, which is ignored", self._journal)

    def _append(self, line: bytes) -> None:
        """Append a line to the journal; after an `OSError`, the journal is unchanged."""
        self._journal.touch(0o644)
        with self._journal.open("r+b", buffering=0) as file:
            file.seek(self._journalled)
            try:
                write_all(file, line)
                file.truncate()
                if self._sync:
                    sync_file(self._journal)
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(self._journalled)
                raise
        self._journalled += len(line)

    def _shorten_journal(self, end: int) -> None:
        """Remove the changes that ``index.json`` contains; leaving them would be harmless."""
        if end == self._journalled:
            self._journal.unlink()
            self._journalled = 0
            return
        rest = self._journal.read_bytes()[end : self._journalled]
        with fresh_file(self._journal, [rest], sync=self._sync) as fresh:
            fresh.replace(self._journal)
        self._journalled = len(rest)

    def _flush_later(self) -> None:
        if self._timer is not None or self._closed:
            return
        count = len(self._manifests) + len(self._tags)
        self._timer = threading.Timer(_FLUSH_SECONDS + count / _FLUSHED_PER_SECOND, self._flush_in_background)
        self._timer.daemon = True
        self._timer.start()

    def _flush_in_background(self) -> None:
        with self._lock:
            self._stop_timer()
        try:
            self.flush(background=True)
        except (OSError, DiskFull, DamagedContent) as error:
            # The journal has every change, and the next change schedules another flush.
            logger().warning("%s cannot be updated: %s", self._index, error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _encoded(entries: Iterable[Descriptor]) -> Iterator[bytes]:
    """Yield ``index.json`` entry by entry, because encoding all at once would block the other threads."""
    head, _, tail = ImageIndex(manifests=()).encode().partition(b"[]")
    yield head + b"["
    for position, entry in enumerate(entries):
        yield (b"," if position else b"") + canonical_json.encode(entry.to_json())
    yield b"]" + tail


def _mark_of(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state.st_ino, state.st_mtime_ns, state.st_size


def _read(index: Path) -> list[Descriptor]:
    """Read the entries of an ``index.json`` of any size; raise `DamagedContent` if it is not valid."""
    try:
        fields = json.loads(index.read_bytes())
        return [Descriptor.from_json(entry) for entry in fields["manifests"] or ()]
    except (ValueError, RecursionError, TypeError, KeyError, InvalidInput) as error:
        advice = "Restore it from a backup, or move this repository's folder away and push its images again."
        raise DamagedContent(f"{index} is not the index of an OCI layout: {error!s:.200}", advice=advice) from error


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []


def _record(line: bytes) -> dict[str, Any] | None:
    """Parse a line of the journal; return None if it is incomplete or not valid."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
        return record if isinstance(record, dict) and _is_change(record) else None
    except (ValueError, RecursionError, InvalidInput):
        return None


def _is_change(record: dict[str, Any]) -> bool:
    """Whether a record can be applied; raises `InvalidInput` for an invalid digest or descriptor."""
    if "put" in record:
        Descriptor.from_json(record["put"])
        tags = record.get("tags")
        return isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)
    if "untag" in record:
        return isinstance(record["untag"], str)
    return isinstance(record.get("delete"), str) and bool(Digest(record["delete"]))
