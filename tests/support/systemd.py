"""A minimal Debian with systemd as process 1: a machine as far as units are concerned, with a separate network."""

import secrets
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from soci_pipeline.machine.programs import Completed, background, run
from tests.support.chroot import Chroot

_BOOT_SECONDS = 60.0
_STATES = ("running", "degraded")

# systemd must be process 1, and needs a root that is a mount point (ProtectSystem mounts it again, read-only) and
# separate control groups. Devices are copied one by one: systemd would mount a /dev that is not a mount point itself,
# and that would be this machine's. It configures the loopback interface.
_BOOT = """
set -eu
mount --rbind "$1" "$1"
mount -t proc proc "$1/proc"
mount --bind "$1/proc/sys" "$1/proc/sys"
mount -o remount,bind,ro "$1/proc/sys"
mount -t sysfs -o ro sysfs "$1/sys"
for folder in run dev; do mount -t tmpfs -o mode=755 tmpfs "$1/$folder"; done
mkdir "$1/dev/shm" "$1/dev/pts"
mount -t tmpfs tmpfs "$1/dev/shm"
for name in null zero full random urandom tty; do cp -a "/dev/$name" "$1/dev/"; done
ln -s pts/ptmx "$1/dev/ptmx"
mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
mkdir "$1/sys/fs/cgroup/$2"
echo $$ > "$1/sys/fs/cgroup/$2/cgroup.procs"
umount "$1/sys/fs/cgroup"
exec unshare --cgroup sh -euc '
  mount -t cgroup2 cgroup2 "$0/sys/fs/cgroup"
  exec env -i container=chroot PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$0" /lib/systemd/systemd --system
' "$1"
"""
_REMOVE_GROUPS = """
set -eu
mount -t cgroup2 cgroup2 "$1"
cd "$1"
for attempt in $(seq 100); do
  [ -d "$2" ] || exit 0
  find "$2" -depth -type d -exec rmdir {} ";" 2>/dev/null || true
  sleep 0.1
done
exit 1
"""


@dataclass(frozen=True)
class Machine:
    """A machine that is up. ``pid`` is that of its systemd, as seen from outside."""

    root: Path
    pid: int

    def run(self, script: str, *, cwd: str = "/", timeout: float = 120) -> Completed:
        """Run a shell script as root on it, with a clean environment; raise `ToolFailed` with its last lines."""
        entered = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--uts", "--ipc"]
        environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"]
        inner = f"cd {shlex.quote(cwd)} && {script}"
        return run(
            [*entered, *environment, "chroot", self.root, "bash", "-euo", "pipefail", "-c", inner], timeout=timeout
        )

    def page(self, url: str, *, within: float = 300) -> str:
        """Return the response of a URL on the machine, once it answers."""
        read = "import sys, urllib.request as web; print(web.urlopen(sys.argv[1]).read().decode())"
        ask = shlex.join(["python3", "-c", read, url])
        return self.run(f"until {ask} 2>/dev/null; do sleep 0.5; done", timeout=within).stdout

    def processes_of(self, *users: str) -> list[str]:
        """Return the process ids of some users."""
        return self.run(
            f"find /proc -maxdepth 1 '(' {' -o '.join(f'-user {user}' for user in users)} ')'"
        ).stdout.split()


@contextmanager
def booted(chroot: Chroot) -> Iterator[Machine]:
    """Install systemd into a minimal Debian, start it there, and end it with all that it started."""
    install = "DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends systemd dbus"
    chroot.run(f"apt-get update -q && {install}")
    group, devices = f"soci-units-{secrets.token_hex(4)}", set(Path("/dev").iterdir())
    namespaces = ["--mount", "--propagation=private", "--pid", "--net", "--uts", "--ipc"]
    argv = ["unshare", *namespaces, "--fork", "--kill-child", "sh", "-c", _BOOT, "sh", str(chroot.root), group]
    log = chroot.root / "boot.log"
    try:
        with background(argv, log=log) as child:
            try:
                yield _up(chroot.root, child, log)
            finally:
                # It ignores SIGTERM while it waits; killing its child ends everything in the namespace.
                child.kill()
    finally:
        remove = ["sh", "-c", _REMOVE_GROUPS, "sh", str(chroot.root / "mnt"), group]
        run(["unshare", "--mount", "--propagation=private", *remove], timeout=60)
    assert set(Path("/dev").iterdir()) <= devices, "the machine's devices are this one's"


def _up(root: Path, child: subprocess.Popen[bytes], log: Path) -> Machine:
    """Return the machine once systemd is up; fail the test with the boot log otherwise."""
    deadline = time.monotonic() + _BOOT_SECONDS
    state = "not there"
    while time.monotonic() < deadline and child.poll() is None:
        machine = _machine(root, child)
        if machine is not None:
            state = machine.run("systemctl is-system-running 2>&1 || true").stdout.strip()
            if state in _STATES:
                return machine
        time.sleep(0.5)
    raise AssertionError(f"systemd is {state!r}, its process ended with {child.poll()}\n{log.read_text()}")


def _machine(root: Path, child: subprocess.Popen[bytes]) -> Machine | None:
    """Return the machine if the namespace's first process is systemd already."""
    try:
        pids = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        if pids and Path(f"/proc/{pids[0]}/comm").read_text().strip() == "systemd":
            return Machine(root, int(pids[0]))
    except OSError:
        return None
    return None
