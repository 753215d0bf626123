"""Control groups for a private engine: mounted where a bare root lacks them, and taken away again."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from soci_pipeline.local.footprint import Footprint
from soci_pipeline.process import logger, run

_ROOT = Path("/sys/fs/cgroup")
_MOUNTS = Path("/proc/self/mounts")


@contextlib.contextmanager
def cgroups_mounted(traces: Footprint) -> Iterator[None]:
    """Have a cgroup hierarchy: the machine's, or version 2 mounted by us until the footprint is undone."""
    if not any(kind in {"cgroup", "cgroup2"} for _, kind in mounted_filesystems()):
        logger().info("mounting cgroup2, which this root lacks")
        traces.record_mount(_ROOT)
        run(["mount", "-t", "cgroup2", "cgroup2", _ROOT], package="mount")
    yield


@contextlib.contextmanager
def removing_cgroups(name: str) -> Iterator[None]:
    """Remove the groups below ``name`` in every hierarchy at the end; they are empty once the engine has ended."""
    try:
        yield
    finally:
        hierarchies = [Path(target) for target, kind in mounted_filesystems() if kind in {"cgroup", "cgroup2"}]
        for hierarchy in hierarchies:
            for folder, _, _ in os.walk(hierarchy / name, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()


def mounted_filesystems() -> list[tuple[str, str]]:
    """Mount points and file system types of this mount namespace, in order of mounting."""
    fields = (line.split() for line in _MOUNTS.read_text().splitlines())
    return [(words[1], words[2]) for words in fields if len(words) > 2]
