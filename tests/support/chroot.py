"""A minimal Debian in a folder, like a new machine; it shares only the network configuration with this one."""

import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_stack.debian_packages import PackageArchive, Suite
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import ToolMissing
from soci_pipeline.machine.programs import Completed, run

# How this machine reaches the package registries.
_FROM_THIS_MACHINE = ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Chroot:
    """A root file system; each call has its own mount and process namespaces, so that no mount outlives it."""

    root: Path

    def run(self, script: str, *, cwd: str = "/", timeout: float = 900) -> Completed:
        """Run a shell script in it as root, with a clean environment; raise `ToolFailed` with its last lines."""
        inner = f"cd {shlex.quote(cwd)} && {script}"
        proxies = [f"{name}={os.environ[name]}" for name in _PROXIES if name in os.environ]
        environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", *proxies]
        root = shlex.quote(str(self.root))
        outer = (
            f"set -e; mount -t proc proc {root}/proc; mkdir -p {root}/dev/shm; mount -t tmpfs tmpfs {root}/dev/shm; "
            f"exec {shlex.join(['env', '-i', *environment, 'chroot', str(self.root), 'sh', '-c', inner])}"
        )
        unshared = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        return run([*unshared, "sh", "-c", outer], timeout=timeout, stream=True)


@contextmanager
def minbase(
    folder: Path, toolchain: Toolchain, packages: Sequence[str], *, suite: Suite = Suite.OWN
) -> Iterator[Chroot]:
    """Bootstrap a release into ``folder/root`` with some packages, and remove it at the end.

    Raises `ToolMissing` without root or on systems other than Debian and Ubuntu.
    """
    if os.geteuid() != 0:
        raise ToolMissing("a chroot needs root", advice="Run the tests as root.")
    archive = PackageArchive(toolchain.folder / "apt")
    folder.mkdir(parents=True, exist_ok=True)
    run(["dpkg-deb", "-x", archive.download("mmdebstrap", Suite.NEWER, folder), folder / "mmdebstrap"])
    root = folder / "root"
    codename = archive.release.codename_of(suite)
    # The download has written the private list of sources, with a line for each release.
    sources = (archive.folder / "sources.list").read_text().splitlines()
    (source,) = [line for line in sources if f" {codename} " in line]
    program = folder / "mmdebstrap" / "usr" / "bin" / "mmdebstrap"
    options = ["--mode=root", "--variant=minbase", "--quiet", f"--include={','.join(packages)}"]
    try:
        run([program, *options, codename, root, source], timeout=900, stream=True)
        for name in _FROM_THIS_MACHINE:
            if (Path("/") / name).is_file() and (root / name).parent.is_dir():
                shutil.copyfile(Path("/") / name, root / name)
        yield Chroot(root)
    finally:
        shutil.rmtree(folder)
