"""Control groups and mounts of this machine, as listed by the kernel."""

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from soci_pipeline.errors import ToolFailed
from soci_pipeline.log import logger
from soci_pipeline.machine.emulation import mounted_filesystems
from soci_pipeline.machine.programs import run

_CONTROLLERS = Path("/proc/cgroups")
_ROOT = Path("/sys/fs/cgroup")


def cgroup_mounts() -> list[str]:
    """Return shell commands that mount the cgroup hierarchies unless mounted; a bare root has neither them nor sysfs.

    They are for the engine's own mount namespace.
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
    """Return the controllers of version 1 hierarchies, from cgroups(7)'s ``/proc/cgroups``."""
    rows = [line.split() for line in table.splitlines() if not line.startswith("#")]
    return [row[0] for row in rows if len(row) == 4 and row[1] != "0" and row[3] == "1"]


def remove_cgroups(name: Path) -> None:
    """Remove the groups below a name in every hierarchy; their processes must already have been signalled."""
    removal = shlex.join(["sh", "-c", _REMOVAL, "sh", str(_ROOT), str(name)])
    mounts = cgroup_mounts()
    root = Path(tempfile.mkdtemp(prefix="soci-root-"))
    try:
        run(in_own_mounts([*mounts, removal], root=root) if mounts else ["sh", "-c", removal], timeout=90)
    except ToolFailed:
        logger().warning("cannot remove the control group %s; a process is still running in it", name)
    finally:
        unmount(root)
        root.rmdir()


# Repeated, since a killed process leaves its group a moment later.
_REMOVAL = """
for attempt in $(seq 600); do
  find "$1" -depth -type d -path "*/$2*" -exec rmdir {} ";" 2>/dev/null
  [ -z "$(find "$1" -type d -path "*/$2" 2>/dev/null)" ] && exit 0
  sleep 0.1
done
exit 1
"""


def in_own_mounts(script: Sequence[str], *, root: Path, options: Sequence[str] = ()) -> list[str]:
    """Return a command line that runs shell commands in a private mount namespace.

    ``options`` are for unshare(1). In a chroot the root is not a mount point, and its mounts would be visible outside;
    there the script works in ``root``, an empty folder onto which the root is bind-mounted.
    """
    lines = " && ".join(script)
    if not is_chroot():
        lines = f"mount --make-rslave / 2>/dev/null; {lines}"
    else:
        place = shlex.quote(str(root))
        inner = f"exec chroot {place} sh -c {shlex.quote(lines)}"
        lines = f"mount --rbind / {place} && mount --make-rslave {place} && {inner}"
    return ["unshare", "--mount", "--propagation", "unchanged", *options, "sh", "-c", lines]


def is_chroot() -> bool:
    """Whether the root is not a mount point, as in a chroot."""
    return not is_mounted(Path("/"))


def is_mounted(target: Path) -> bool:
    """Whether something is mounted there; `os.path.ismount` does not detect bind mounts of the same file system."""
    return any(path == str(target) for path, _ in mounted_filesystems())


def unmount(target: Path) -> None:
    """Unmount everything at and below a path, if mounted."""
    while is_mounted(target):
        run(["umount", "--lazy", target], package="mount")
