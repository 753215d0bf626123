"""A private containerd, optionally with Debian's SOCI snapshotter, that leaves nothing behind.

Both run in separate mount and process namespaces: their mounts (FUSE ones too) and the folders to which `soci` and
containerd write regardless of their settings are invisible outside, and a host name can be mapped to an address without
changing the machine's hosts file. When the first process ends, the kernel ends the others.
"""

import json
import os
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_stack.cgroups import cgroup_mounts
from local_stack.footprint import Footprint, footprint
from local_stack.ports import wait_until
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import ToolFailed, ToolMissing
from soci_pipeline.machine.programs import Completed, background, run

TOOLS = ("containerd", "runc", "soci")

_FUSE = Path("/dev/fuse")
# Where containerd, its shims and `soci` write: each is replaced by an empty folder in the namespace.
_HIDDEN = {
    "run": Path("/run/containerd"),
    "opt": Path("/opt/containerd"),
    "soci": Path("/var/lib/soci-snapshotter-grpc"),
}
_START_SECONDS = 60.0


@dataclass(frozen=True)
class PrivateContainerd:
    """A containerd that answers; `run` starts a program next to it, with ``CONTAINERD_ADDRESS`` set."""

    holder: int
    """The process that holds the namespaces."""
    env: Mapping[str, str]
    folder: Path

    def run(self, argv: Sequence[str | Path], *, timeout: float = 300) -> Completed:
        """Run a program in the namespaces."""
        namespaces = [f"--mount=/proc/{self.holder}/ns/mnt", f"--pid=/proc/{self.holder}/ns/pid_for_children"]
        return run(["nsenter", *namespaces, *argv], env=self.env, timeout=timeout)

    def soci_blob(self, digest: str) -> bytes:
        """Return the bytes of a blob stored by `soci create`."""
        return (self.folder / "soci" / "content" / "blobs" / digest.replace(":", "/")).read_bytes()

    def fuse_mounts(self) -> list[str]:
        """Return the mount points of FUSE file systems in the namespace."""
        lines = self.run(["cat", "/proc/mounts"]).stdout.splitlines()
        return [words[1] for words in map(str.split, lines) if words[2].startswith("fuse")]


@contextmanager
def private_containerd(
    folder: Path,
    toolchain: Toolchain,
    *,
    snapshotter: bool = False,
    names: Mapping[str, str] | None = None,
    ca_file: Path | None = None,
) -> Iterator[PrivateContainerd]:
    """Start containerd with its data in ``folder``, and with ``snapshotter`` the snapshotter named ``soci``.

    ``names`` maps host names to addresses; ``ca_file`` is the only CA that the programs trust. Raises `ToolMissing`
    without root, FUSE or the packages.
    """
    if os.geteuid() != 0:
        raise ToolMissing("a containerd of our own needs root", advice="Run the tests as root.")
    if snapshotter and not _FUSE.exists():
        raise ToolMissing("the SOCI snapshotter needs /dev/fuse, and this machine has none")
    env = toolchain.ensure(TOOLS)
    folder.mkdir(parents=True, exist_ok=True)
    with footprint(folder) as traces:
        # A short path, since it contains sockets, with only characters that are valid in a containerd namespace's name.
        runtime = Path("/tmp") / f"soci-test-{secrets.token_hex(6)}"
        traces.record_folder(runtime)
        runtime.mkdir(mode=0o700)
        traces.record_cgroup(runtime.name)
        env |= traces.environment | {
            "CONTAINERD_ADDRESS": str(runtime / "containerd.sock"),
            # The name of its cgroups, so that they can be identified and removed.
            "CONTAINERD_NAMESPACE": runtime.name,
            # soci 0.4.1 writes local times.
            "TZ": "UTC",
        }
        if ca_file is not None:
            env["SSL_CERT_FILE"] = str(ca_file)
        log = folder / "containerd.log"
        script = _script(folder, runtime, traces, snapshotter=snapshotter, names=names or {})
        unshared = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "--kill-child"]
        with background([*unshared, "sh", "-c", script], env=env, log=log) as child:
            started = PrivateContainerd(child.pid, env, folder)
            waited = runtime / "snapshotter.sock" if snapshotter else runtime / "containerd.sock"
            wait_until(
                lambda: waited.is_socket() and _answers(env),
                what="containerd",
                child=child,
                log=log,
                seconds=_START_SECONDS,
            )
            yield started


def _answers(env: Mapping[str, str]) -> bool:
    try:
        run(["ctr", "version"], env=env, timeout=10)
    except ToolFailed:
        return False
    return True


def _script(folder: Path, runtime: Path, traces: Footprint, *, snapshotter: bool, names: Mapping[str, str]) -> str:
    """Return the script of the namespaces' first process; as a shell it also reaps what the shims leave behind."""
    lines = ["set -e", *cgroup_mounts()]
    for name, hidden in _HIDDEN.items():
        traces.hold_mount_point(hidden)
        (folder / name).mkdir(exist_ok=True)
        lines.append(shlex.join(["mount", "--bind", str(folder / name), str(hidden)]))
    hosts = folder / "hosts"
    given = "".join(f"{address} {name}\n" for name, address in names.items())
    hosts.write_text(Path("/etc/hosts").read_text() + given)
    lines.append(shlex.join(["mount", "--bind", str(hosts), "/etc/hosts"]))
    if snapshotter:
        lines.append(shlex.join(_snapshotter_command(folder, runtime)) + " &")
    lines += [shlex.join(_containerd_command(folder, runtime, snapshotter=snapshotter)) + " &", "wait"]
    return "\n".join(lines)


def _snapshotter_command(folder: Path, runtime: Path) -> list[str]:
    configuration = folder / "snapshotter.toml"
    # Without the background fetch, only requested content is read from the registry.
    configuration.write_text("[background_fetch]\ndisable = true\n")
    places = ["-root", str(folder / "snapshotter"), "-address", str(runtime / "snapshotter.sock")]
    return ["soci-snapshotter-grpc", "-config", str(configuration), *places]


def _containerd_command(folder: Path, runtime: Path, *, snapshotter: bool) -> list[str]:
    configuration = folder / "containerd.toml"
    text = (
        "version = 2\n"
        f"root = {json.dumps(str(folder / 'containerd'))}\n"
        f"state = {json.dumps(str(runtime / 'state'))}\n"
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f"[grpc]\naddress = {json.dumps(str(runtime / 'containerd.sock'))}\n"
    )
    if snapshotter:
        socket = json.dumps(str(runtime / "snapshotter.sock"))
        text += f'[proxy_plugins.soci]\ntype = "snapshot"\naddress = {socket}\n'
    configuration.write_text(text)
    return ["containerd", "--config", str(configuration), "--log-level", "warn"]
