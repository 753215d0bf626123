"""A base image for the worker image: a Debian 13 with Python, made here, as no public registry need be reachable."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_stack.debian_packages import Suite
from local_stack.engine import Engine
from local_stack.toolchain import Toolchain
from soci_pipeline.machine.programs import run
from tests.support.chroot import minbase

# As the Dockerfile's own base image has them.
_PACKAGES = ("ca-certificates", "python3", "python3-venv")


@contextmanager
def worker_base(engine: Engine, toolchain: Toolchain, folder: Path) -> Iterator[str]:
    """The name of an image in the engine that knows this machine's way to the packages; raises `ToolMissing`."""
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
