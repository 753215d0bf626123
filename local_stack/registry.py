"""A registry on loopback: this project's own, or Debian's docker-registry, each in a separate process."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from local_stack.ports import LOOPBACK, answers, free_port, wait_until
from local_stack.toolchain import Toolchain
from soci_pipeline.machine.programs import background

_START_SECONDS = 120.0


@contextlib.contextmanager
def embedded_registry(folder: Path, *, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve ``folder/content`` as a registry; yield its address, ``127.0.0.1:PORT``."""
    port = free_port()
    command = ["-m", "soci_pipeline", "registry", "serve", str(folder / "content")]
    argv = [sys.executable, *command, "--host", LOOPBACK, "--port", str(port)]
    with _serving("the embedded registry", argv, folder, port, env) as address:
        yield address


@contextlib.contextmanager
def docker_registry(
    folder: Path, *, toolchain: Toolchain | None = None, env: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run the distribution project's registry 2.8 from Debian's package; yield its address, ``127.0.0.1:PORT``."""
    tools = (toolchain or Toolchain()).ensure(["docker-registry"])
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "registry.yml"
    # JSON is valid YAML.
    configuration.write_text(json.dumps(_configuration(folder, port)))
    argv = ["docker-registry", "serve", str(configuration)]
    with _serving("docker-registry", argv, folder, port, tools | dict(env or {})) as address:
        yield address


def _configuration(folder: Path, port: int) -> dict[str, object]:
    return {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "content")}, "delete": {"enabled": True}},
        "http": {"addr": f"{LOOPBACK}:{port}"},
    }


@contextlib.contextmanager
def _serving(what: str, argv: list[str], folder: Path, port: int, env: Mapping[str, str] | None) -> Iterator[str]:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "registry.log"
    log.unlink(missing_ok=True)
    with background(argv, env=env, log=log) as child:
        url = f"http://{LOOPBACK}:{port}/v2/"
        wait_until(lambda: answers(url), what=what, child=child, log=log, seconds=_START_SECONDS)
        yield f"{LOOPBACK}:{port}"
