"""Images for a machine that cannot build any: real per-architecture content from the Python package index.

The wheels of one package for each platform and the example's own files become an OCI archive for each platform, as
another build system might produce. They contain no interpreter, so they are published and read, but not run.
"""

import contextlib
import functools
import shutil
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from local_stack.folder_lock import folder_lock
from local_stack.plain_image import Member, add_image, add_layer, file_member
from local_stack.ports import LOOPBACK
from local_stack.toolchain import Toolchain
from soci_pipeline.archive.write import write_archive
from soci_pipeline.errors import InvalidInput
from soci_pipeline.log import logger
from soci_pipeline.machine.programs import run
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.platform import Platform

PACKAGE = "numpy==2.2.6"
"""A package with compiled code whose wheel is larger than 10 MiB and exists for both architectures."""

_PYTHON = "3.11"
_WHEEL_PLATFORMS = {"amd64": "manylinux2014_x86_64", "arm64": "manylinux2014_aarch64"}
_SITE = "opt/hello-web/lib"
_CREATED = 1_704_067_200  # 2024-01-01: the archives depend only on their content


def prebuilt_archives(
    folder: Path, platforms: Sequence[Platform], *, application: Path, toolchain: Toolchain | None = None
) -> Path:
    """Write an OCI archive for each platform (``linux-amd64.tar``, …) into ``folder``; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tools = toolchain or Toolchain()
    for platform in platforms:
        wheels = _wheels(tools, platform)
        logger().info("assembling an image for %s from %s", platform, ", ".join(path.name for path in wheels))
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            layout = _image(Path(scratch) / "layout", wheels, application, platform)
            write_archive(layout, folder / f"{platform.slug}.tar")
    return folder


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP on loopback during the block, since workers share no disk. Yields the base URL."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer((LOOPBACK, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="archives", daemon=True)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name is the standard library's
        logger().debug(format, *arguments)


def _wheels(tools: Toolchain, platform: Platform) -> list[Path]:
    wanted = _WHEEL_PLATFORMS.get(platform.architecture)
    if platform.os != "linux" or wanted is None:
        raise InvalidInput(f"there are no wheels for {platform}", advice="Use linux/amd64 or linux/arm64.")
    place = tools.folder / "wheels" / f"{PACKAGE.replace('==', '-')}-{wanted}"
    with folder_lock(place.parent):
        if not place.is_dir():
            logger().info("fetching %s for %s", PACKAGE, platform)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=".fetching-") as scratch:
                options = ["--no-deps", "--only-binary=:all:", "--platform", wanted, "--python-version", _PYTHON]
                pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
                run([*pip, *options, "--dest", str(Path(scratch) / "wheels"), PACKAGE], timeout=600)
                shutil.move(Path(scratch) / "wheels", place)
    return sorted(place.glob("*.whl"))


def _image(folder: Path, wheels: Sequence[Path], application: Path, platform: Platform) -> Layout:
    layout = Layout.create(folder)
    library = [member for wheel in wheels for member in _wheel_members(wheel)]
    files = [
        file_member(f"srv/hello/{path.relative_to(application)}", path.read_bytes(), moment=_CREATED)
        for path in sorted(application.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    layers = [
        add_layer(layout, library, created_by=f"soci-pipeline: files of {PACKAGE}"),
        add_layer(layout, files, created_by="soci-pipeline: the example's own files"),
    ]
    config = {"Env": [f"PYTHONPATH=/{_SITE}"], "Cmd": ["python3", "/srv/hello/service.py"]}
    layout.set_roots([add_image(layout, layers, platform, created=_CREATED, config=config)])
    return layout


def _wheel_members(wheel: Path) -> Iterator[Member]:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                mode = 0o755 if (entry.external_attr >> 16) & 0o100 else 0o644
                yield file_member(f"{_SITE}/{entry.filename}", archive.read(entry), mode=mode, moment=_CREATED)
