"""Provide a Docker engine: the one that runs on this machine, or a private one from unpacked packages.

The private engine needs root on Debian or Ubuntu. It lives in separate mount and process namespaces: its mounts are not
visible outside, and when its first process ends, for whatever reason, the kernel ends containerd, every shim and every
container with it. It creates no bridge and does not change the firewall, so it can run next to another engine; builds
and containers use the host's network.
"""

import contextlib
import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_stack.cgroups import cgroup_mounts, in_own_mounts
from local_stack.footprint import Footprint, footprint
from local_stack.ports import wait_until
from local_stack.toolchain import ENGINE, Toolchain
from soci_pipeline.builders.buildx import has_containerd_store
from soci_pipeline.builders.engine_client import docker_host, engine_information
from soci_pipeline.containerd.socket import find_socket
from soci_pipeline.errors import EngineUnavailable, ToolMissing
from soci_pipeline.log import logger
from soci_pipeline.machine.programs import background

_START_SECONDS = 120.0
# The kernel allows 107 bytes for a socket's path, and containerd's sockets below this folder need about 40.
_LONGEST_RUNTIME_FOLDER = 60
# containerd and its shims write here regardless of their settings.
_HIDDEN_FOLDERS = (Path("/run/containerd"), Path("/run/docker"), Path("/opt/containerd"))


@dataclass(frozen=True, slots=True)
class Engine:
    """A Docker engine that answers."""

    docker_host: str
    """Its URL in the form of ``DOCKER_HOST``."""
    containerd_socket: Path | None
    """The containerd that it uses, if it is reachable from here."""
    version: str
    containerd_image_store: bool
    """Whether it keeps images in containerd, so that the default buildx driver can export an OCI layout."""
    private: bool
    """Whether it was started here and ends with the ``with`` block."""
    env: Mapping[str, str] = field(repr=False)
    """A complete environment for programs that use it: PATH, DOCKER_HOST, CONTAINERD_ADDRESS and what they need."""


@contextlib.contextmanager
def running_engine(folder: Path, *, toolchain: Toolchain | None = None, private: bool = False) -> Iterator[Engine]:
    """Yield this machine's engine, else (or with ``private``) a private one with its data in ``folder``.

    Raises `ToolMissing` if no private engine is possible, `EngineUnavailable` if it does not start.
    """
    found = None if private else find_engine()
    if found is not None:
        logger().info("using the Docker engine %s at %s", found.version, found.docker_host)
        yield found
        return
    with private_engine(folder, toolchain=toolchain) as engine:
        yield engine


def find_engine(environment: Mapping[str, str] | None = None) -> Engine | None:
    """Return the engine at ``DOCKER_HOST`` or at the default socket, if it answers.

    Raises `EngineUnavailable` if ``DOCKER_HOST`` is set but does not answer, since it was set on purpose.
    """
    env = dict(os.environ if environment is None else environment)
    named = env.get("DOCKER_HOST")
    engine = _engine_of(env, containerd=_containerd_socket(env), private=False)
    if engine is None and named:
        raise EngineUnavailable(
            f"no Docker engine answers at DOCKER_HOST={named}",
            advice="Start it, correct DOCKER_HOST, or unset DOCKER_HOST to let a private engine be started.",
        )
    return engine


@contextlib.contextmanager
def private_engine(folder: Path, *, toolchain: Toolchain | None = None) -> Iterator[Engine]:
    """Start a private engine with its data in ``folder``, and end it with everything that it started."""
    if os.geteuid() != 0:
        raise ToolMissing(
            "no Docker engine answers, and only root can start a private one",
            advice="Start Docker, run this as root on Debian or Ubuntu, or use the builder `prebuilt`.",
        )
    tools = toolchain or Toolchain()
    env = tools.ensure(ENGINE)
    with footprint(folder.absolute()) as traces, contextlib.ExitStack() as stack:
        runtime = _runtime_folder(traces)
        env |= traces.environment | {
            "DOCKER_HOST": f"unix://{runtime}/docker.sock",
            "CONTAINERD_ADDRESS": f"{runtime}/exec/containerd/containerd.sock",
            "DOCKER_CONFIG": str(tools.docker_configuration()),
        }
        traces.record_cgroup(runtime.name)
        logger().info("starting a private Docker engine")
        log = folder / "engine.log"
        log.unlink(missing_ok=True)
        child = stack.enter_context(background(_command(folder.absolute(), runtime, traces), env=env, log=log))
        yield _wait(child, env, log)
        logger().info("stopping the private Docker engine")


def _runtime_folder(traces: Footprint) -> Path:
    """Create a folder for sockets, with a short path."""
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > _LONGEST_RUNTIME_FOLDER - 20:
        parent = Path("/tmp")  # noqa: S108 - the folder made in it is private
    folder = Path(tempfile.mkdtemp(prefix="soci-engine-", dir=parent))
    traces.record_folder(folder)
    return folder


def _command(folder: Path, runtime: Path, traces: Footprint) -> list[str]:
    """Return the command of the engine in separate namespaces, with the mounts that its containers need."""
    # For a chroot: runc can only leave a root that is a mount point.
    root = runtime / "root"
    root.mkdir()
    traces.record_mount(root)
    script = [*_mounts(traces), *cgroup_mounts(), _dockerd(folder, runtime)]
    return in_own_mounts(script, root=root, options=["--pid", "--fork", "--mount-proc", "--kill-child"])


def _mounts(traces: Footprint) -> list[str]:
    """Return commands that mount empty file systems over the folders that must not be shared with another engine."""
    for path in _HIDDEN_FOLDERS:
        traces.hold_mount_point(path)
    return [f"mount -t tmpfs -o mode=0711 tmpfs {path}" for path in _HIDDEN_FOLDERS]


def _dockerd(folder: Path, runtime: Path) -> str:
    configuration = runtime / "daemon.json"
    configuration.write_text(json.dumps(_configuration(folder, runtime)))
    return f"exec dockerd --config-file {shlex.quote(str(configuration))}"


def _configuration(folder: Path, runtime: Path) -> dict[str, object]:
    return {
        "data-root": str(folder / "data"),
        "exec-root": str(runtime / "exec"),
        "pidfile": str(runtime / "docker.pid"),
        "hosts": [f"unix://{runtime}/docker.sock"],
        "features": {"containerd-snapshotter": True},
        "bridge": "none",
        "userland-proxy": False,
        "iptables": False,
        "ip6tables": False,
        "ip-forward": False,
        "ip-masq": False,
        "cgroup-parent": f"/{runtime.name}",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "log-level": "warn",
    }


def _wait(child: subprocess.Popen[bytes], env: Mapping[str, str], log: Path) -> Engine:
    containerd = Path(env["CONTAINERD_ADDRESS"])
    return wait_until(
        lambda: _engine_of(env, containerd=containerd, private=True),
        what="the private Docker engine",
        child=child,
        log=log,
        seconds=_START_SECONDS,
    )


def _engine_of(env: Mapping[str, str], *, containerd: Path | None, private: bool) -> Engine | None:
    information = engine_information(env)
    if information is None:
        return None
    environment = dict(env) | {"DOCKER_HOST": docker_host(env)}
    if containerd is not None:
        environment["CONTAINERD_ADDRESS"] = str(containerd)
    return Engine(
        docker_host=environment["DOCKER_HOST"],
        containerd_socket=containerd,
        version=str(information.get("ServerVersion", "")),
        containerd_image_store=has_containerd_store(information),
        private=private,
        env=environment,
    )


def _containerd_socket(env: Mapping[str, str]) -> Path | None:
    named = env.get("CONTAINERD_ADDRESS")
    if named:
        # A caller that needs it reports if it does not answer.
        return Path(named.removeprefix("unix://"))
    try:
        return find_socket(env=env)
    except EngineUnavailable:
        return None
