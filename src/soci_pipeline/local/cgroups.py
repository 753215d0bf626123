"""Control groups and mounts of this machine, as the kernel lists them."""

import contextlib
import os
import time
from pathlib import Path

from soci_pipeline.process import logger

_MOUNTS = Path("/proc/self/mounts")
_EMPTY_SECONDS = 10.0


def have_cgroups() -> bool:
    """Whether any hierarchy of control groups is mounted."""
    return any(kind in {"cgroup", "cgroup2"} for _, kind in mounted_filesystems())


def remove_cgroups(name: Path) -> None:
    """Remove the groups below a name in every hierarchy; their processes must have been told to end."""
    deadline = time.monotonic() + _EMPTY_SECONDS
    folders = [Path(target) / name for target, kind in mounted_filesystems() if kind in {"cgroup", "cgroup2"}]
    for folder in folders:
        while folder.is_dir():
            for below, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    Path(below).rmdir()
            if time.monotonic() > deadline:
                logger().warning("the control group %s cannot be removed; something still runs in it", folder)
                break
            # A process that was killed leaves its group a moment later.
            time.sleep(0.02)


def mounted_filesystems() -> list[tuple[str, str]]:
    """Mount points and file system types of this mount namespace, in order of mounting."""
    fields = (line.split() for line in _MOUNTS.read_text().splitlines())
    return [(words[1], words[2]) for words in fields if len(words) > 2]
