"""Control groups and mounts of this machine, as the kernel lists them."""

import contextlib
import os
import time
from pathlib import Path

from soci_pipeline.process import logger

_MOUNTS = Path("/proc/self/mounts")
_CONTROLLERS = Path("/proc/cgroups")
_ROOT = Path("/sys/fs/cgroup")
_EMPTY_SECONDS = 10.0


def cgroup_mounts() -> list[str]:
    """Shell commands that mount the kernel's hierarchies where none is: a bare root has neither them nor sysfs.

    They are for a mount namespace of the engine's own.
    """
    if any(kind in {"cgroup", "cgroup2"} for _, kind in mounted_filesystems()):
        return []
    commands = ["mount -t sysfs sysfs /sys"] if not _ROOT.is_dir() else []
    controllers = _version_1_controllers(_CONTROLLERS.read_text())
    if not controllers:
        return [*commands, f"mount -t cgroup2 cgroup2 {_ROOT}"]
    each = [f"mkdir {_ROOT}/{name} && mount -t cgroup -o {name} cgroup {_ROOT}/{name}" for name in controllers]
    return [*commands, f"mount -t tmpfs -o mode=0755 tmpfs {_ROOT}", *each]


def _version_1_controllers(table: str) -> list[str]:
    """The controllers that a hierarchy of version 1 has, from cgroups(7)'s ``/proc/cgroups``."""
    rows = [line.split() for line in table.splitlines() if not line.startswith("#")]
    return [row[0] for row in rows if len(row) == 4 and row[1] != "0" and row[3] == "1"]


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
