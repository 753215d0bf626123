"""A base image for the worker image: a local Debian 13 with Python, in case no public registry is reachable."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_stack.debian_packages import Suite
from local_stack.engine import Engine
from local_stack.toolchain import Toolchain
from soci_pipeline.machine.programs import run
from tests.support.chroot import minbase

# As in the Dockerfile's own base image.
_PACKAGES = ("ca-certificates", "python3", "python3-venv")


@contextmanager
def worker_base(engine: Engine, toolchain: Toolchain, folder: Path) -> Iterator[str]:
    """Yield the name of an image in the engine with this machine's package configuration; raise `ToolMissing`."""
    name = f"worker-base:{secrets.token_hex(4)}"
    with minbase(folder / "debian", toolchain, _PACKAGES, suite=Suite.NEWER) as machine:
        archive = folder / "root.tar"
        run(["tar", "--create", "--file", archive, "--directory", machine.root, "."])
        run(["docker", "import", archive, name], env=engine.env, timeout=300)
        archive.unlink()
    try:
        yield name
    finally:
        run(["docker", "image", "rm", "--force", name], env=engine.env)
