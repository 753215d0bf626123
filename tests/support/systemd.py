"""A bare Debian whose process 1 is systemd: a machine, as far as units are concerned, with a network of its own."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from soci_pipeline.process import Completed, background, run
from tests.support.chroot import Chroot

_BOOT_SECONDS = 60.0
_STATES = ("running", "degraded")

# systemd needs to be process 1, a root that is a mount point (ProtectSystem mounts it once more, read-only), and a
# hierarchy of control groups, which a kernel has under version 1 by that name. It sets up the loopback interface.
_BOOT = """
set -eu
mount --rbind "$1" "$1"
mount -t proc proc "$1/proc"
mount -t sysfs sysfs "$1/sys"
for folder in run dev/shm sys/fs/cgroup; do mount -t tmpfs -o mode=755 tmpfs "$1/$folder"; done
mkdir "$1/sys/fs/cgroup/systemd"
mount -t cgroup -o none,name=systemd cgroup "$1/sys/fs/cgroup/systemd"
mkdir "$1/sys/fs/cgroup/systemd/$2"
echo $$ > "$1/sys/fs/cgroup/systemd/$2/cgroup.procs"
umount "$1/sys/fs/cgroup/systemd"
exec unshare --cgroup sh -euc '
  mount -t cgroup -o none,name=systemd cgroup "$0/sys/fs/cgroup/systemd"
  exec env -i container=chroot PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$0" /lib/systemd/systemd --system
' "$1"
"""
_REMOVE_GROUPS = """
set -eu
mount -t cgroup -o none,name=systemd cgroup "$1"
cd "$1"
for attempt in $(seq 100); do
  find "$2" -depth -type d -exec rmdir {} ";" 2>/dev/null || true
  [ -d "$2" ] || exit 0
  sleep 0.1
done
exit 1
"""


@dataclass(frozen=True)
class Machine:
    """A machine that is up. ``pid`` is that of its systemd, seen from outside."""

    root: Path
    pid: int

    def run(self, script: str, *, cwd: str = "/", timeout: float = 120) -> Completed:
        """Run a shell script as root on it, with a clean environment; raises `ToolFailed` with its last lines."""
        entered = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net"]
        environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"]
        inner = f"cd {shlex.quote(cwd)} && {script}"
        return run(
            [*entered, *environment, "chroot", self.root, "bash", "-euo", "pipefail", "-c", inner], timeout=timeout
        )

    def page(self, url: str, *, within: float = 60) -> str:
        """What an address on it answers with, once it does."""
        read = "import sys, urllib.request as web; print(web.urlopen(sys.argv[1]).read().decode())"
        ask = shlex.join(["python3", "-c", read, url])
        return self.run(f"until {ask} 2>/dev/null; do sleep 0.5; done", timeout=within).stdout


@contextmanager
def booted(chroot: Chroot) -> Iterator[Machine]:
    """Install systemd into a bare Debian, start it there, and end it with all that it started."""
    install = "DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends systemd dbus"
    chroot.run(f"apt-get update -q && {install}")
    root, name = str(chroot.root), f"soci-units-{chroot.root.parent.name}"
    unshared = ["unshare", "--mount", "--propagation=private", "--pid", "--net", "--fork", "--kill-child"]
    try:
        with background([*unshared, "sh", "-c", _BOOT, "sh", root, name], log=chroot.root / "boot.log") as child:
            machine = Machine(chroot.root, _first_process(child))
            try:
                _wait_until_up(machine, child)
                yield machine
            finally:
                # With its first process everything in the namespace ends.
                os.kill(machine.pid, signal.SIGKILL)
    finally:
        mounts = ["unshare", "--mount", "--propagation=private", "sh", "-c", _REMOVE_GROUPS, "sh"]
        run([*mounts, chroot.root / "mnt", name], timeout=60)


def _first_process(child: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    deadline = time.monotonic() + _BOOT_SECONDS
    while not (pids := children.read_text().split()):
        assert time.monotonic() < deadline, "no process was started"
        time.sleep(0.05)
    return int(pids[0])


def _wait_until_up(machine: Machine, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _BOOT_SECONDS
    asked = "systemctl is-system-running 2>&1 || true"
    while (state := machine.run(asked).stdout.strip() if _is_systemd(machine.pid) else "not there yet") not in _STATES:
        log = (machine.root / "boot.log").read_text()
        assert child.poll() is None, f"systemd ended with {child.returncode}\n{log}"
        assert time.monotonic() < deadline, f"systemd is still {state!r}\n{log}"
        time.sleep(0.5)


def _is_systemd(pid: int) -> bool:
    return (Path("/proc") / str(pid) / "comm").read_text().strip() == "systemd"
