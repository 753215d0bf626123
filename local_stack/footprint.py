"""Record what a local stack leaves on the machine while it runs, so that it can always be cleaned up.

Every process of a stack carries a random mark in its environment, and mounts, folders and kernel registrations are
recorded in a file before they are made. Leaving the ``with`` block undoes them; if the stack itself was killed, the
next one in the same folder does.
"""

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from local_stack.cgroups import remove_cgroups, unmount
from local_stack.folder_lock import folder_lock
from local_stack.mount_points import hold, remove_if_unused
from soci_pipeline.log import logger
from soci_pipeline.machine.emulation import mounted_filesystems
from soci_pipeline.machine.marked_processes import Mark

VARIABLE = "SOCI_PIPELINE_STACK"
"""The environment variable that carries the mark."""

_GRACE_SECONDS = 10.0


class Footprint:
    """One run of a stack in a folder; created by `footprint`."""

    def __init__(self, folder: Path, mark: str, records: list[tuple[str, str]]) -> None:
        self.folder = folder
        self.mark = mark
        self._records = records
        self._held: list[int] = []

    @property
    def environment(self) -> dict[str, str]:
        """The variables that every process of the stack must have in its environment."""
        return {VARIABLE: self.mark}

    def record_mount(self, target: Path) -> None:
        """Unmount a mount point at the end."""
        self._record("mount", target)

    def record_folder(self, folder: Path) -> None:
        """Remove a folder with its content at the end."""
        self._record("folder", folder)

    def hold_mount_point(self, folder: Path) -> None:
        """Create a folder to mount on if it is missing; the last stack that holds it removes it at its end."""
        self._record("mount-point", folder)
        self._held.append(hold(folder))

    def record_binfmt(self, entry: Path) -> None:
        """Unregister an entry of binfmt_misc at the end."""
        self._record("binfmt", entry)

    def record_cgroup(self, name: str) -> None:
        """Remove a control group in every hierarchy at the end."""
        self._record("cgroup", Path(name))

    def undo(self) -> None:
        """End every marked process and undo everything recorded; log what cannot be undone."""
        _end_marked(self.mark)
        while self._held:
            os.close(self._held.pop())
        while self._records:
            kind, target = self._records[-1]
            _UNDO[kind](Path(target))
            self._records.pop()
            self._save()
        _file(self.folder).unlink(missing_ok=True)

    def _record(self, kind: str, target: Path) -> None:
        self._records.append((kind, str(target)))
        self._save()

    def _save(self) -> None:
        fresh = _file(self.folder).with_suffix(".new")
        fresh.write_text(json.dumps({"mark": self.mark, "records": self._records}))
        fresh.replace(_file(self.folder))


@contextlib.contextmanager
def footprint(folder: Path) -> Iterator[Footprint]:
    """Lock a folder and yield its footprint. A killed stack's leftovers are cleaned up first, this one's at the end."""
    with folder_lock(folder):
        earlier = _earlier(folder)
        if earlier is not None:
            logger().info("cleaning up what a killed stack left in %s", folder)
            earlier.undo()
        mine = Footprint(folder, secrets.token_hex(16), [])
        mine._save()
        try:
            yield mine
        finally:
            mine.undo()


def marked_processes(mark: str) -> Iterator[int]:
    """Return the ids of all processes whose environment has the mark, except the calling one."""
    return (process.pid for process in Mark(VARIABLE, mark).processes())


def _end_marked(mark: str) -> None:
    left = Mark(VARIABLE, mark).end(grace=_GRACE_SECONDS)
    if left:
        logger().warning("processes %s of the stack are still running after SIGKILL", ", ".join(map(str, left)))


def _remove(folder: Path) -> None:
    """Remove a folder; retry, since an ending process may still be deleting files there."""
    below = [target for target, _ in mounted_filesystems() if Path(target).is_relative_to(folder)]
    if below:
        # Removing would delete what is mounted there.
        logger().warning("%s is kept: something is mounted at %s", folder, ", ".join(below))
        return
    deadline = time.monotonic() + _GRACE_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)
    if folder.exists():
        logger().warning("cannot remove %s", folder)


def _unregister(entry: Path) -> None:
    if entry.exists():
        entry.write_text("-1")


_UNDO: dict[str, Callable[[Path], None]] = {
    "mount": unmount,
    "folder": _remove,
    "mount-point": remove_if_unused,
    "binfmt": _unregister,
    "cgroup": remove_cgroups,
}


def _file(folder: Path) -> Path:
    return folder / "footprint.json"


def _earlier(folder: Path) -> Footprint | None:
    try:
        content = json.loads(_file(folder).read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        logger().warning("%s is damaged; nothing can be cleaned up by it", _file(folder))
        return None
    return Footprint(folder, str(content["mark"]), [(str(kind), str(target)) for kind, target in content["records"]])
