"""Find containerd's socket: as configured, at a default path, or next to the Docker engine's socket."""

import os
import socket as sockets
from collections.abc import Iterable, Mapping
from pathlib import Path

from soci_pipeline.errors import EngineUnavailable

USUAL = (
    Path("/run/containerd/containerd.sock"),
    Path("/run/docker/containerd/containerd.sock"),
    Path("/var/run/docker/containerd/containerd.sock"),
)
"""Default paths: containerd's own, and those below the Docker engine's default exec root.

The engine also prefers the first if it exists, and otherwise starts its own containerd.
"""

_ADVICE = "Start containerd or the Docker engine, set CONTAINERD_ADDRESS, or choose the toolchain `native`."


def find_socket(
    address: str | Path | None = None, *, env: Mapping[str, str] | None = None, usual: Iterable[Path] | None = None
) -> Path:
    """Return the socket of a containerd that accepts connections.

    Search order: ``address``, ``CONTAINERD_ADDRESS``, the ``usual`` paths (default: `USUAL`), and the exec root of the
    Docker engine in ``DOCKER_HOST``. If ``address`` or ``CONTAINERD_ADDRESS`` is set, no other path is tried. Raises
    `EngineUnavailable` if no connection succeeds.
    """
    env = os.environ if env is None else env
    named = str(address) if address is not None else env.get("CONTAINERD_ADDRESS")
    if named:
        path = Path(named.removeprefix("unix://"))
        reason = _refusal(path)
        if reason is not None:
            raise EngineUnavailable(f"containerd does not answer at {path}: {reason}", advice=_ADVICE)
        return path
    tried = [*(USUAL if usual is None else usual), *_sockets_near_docker(env.get("DOCKER_HOST", ""))]
    refusals = [(path, _refusal(path)) for path in tried]
    for path, reason in refusals:
        if reason is None:
            return path
    places = ", ".join(f"{path} ({reason})" for path, reason in refusals)
    raise EngineUnavailable(f"no containerd answers: {places}", advice=_ADVICE)


def _sockets_near_docker(docker_host: str) -> list[Path]:
    """Return likely sockets: an engine's exec root is often ``exec`` next to its socket, or the socket's folder."""
    if not docker_host.startswith("unix://"):
        return []
    folder = Path(docker_host.removeprefix("unix://")).parent
    return [folder / "exec/containerd/containerd.sock", folder / "containerd/containerd.sock"]


def _refusal(path: Path) -> str | None:
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(path))
        except (OSError, ValueError) as error:
            return (error.strerror if isinstance(error, OSError) else None) or str(error)
    return None
