"""A build context with a shell, copied from this machine, so that RUN steps need no base image."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from soci_pipeline.machine.programs import run

_LIBRARY = re.compile(r"(/\S+) \(0x")


def add_shell(context: Path, programs: Sequence[str] = ("sh", "cat", "date", "mkdir", "sleep", "touch", "wc")) -> None:
    """Copy programs of this machine, with the libraries that they need, into ``rootfs/`` of a context."""
    for name in programs:
        path = shutil.which(name, path="/usr/bin:/bin")
        assert path is not None, f"this machine has no {name}"
        _copy(Path(path).resolve(), context / "rootfs" / "bin" / name)
        for library in _LIBRARY.findall(run(["ldd", path]).stdout):
            _copy(Path(library).resolve(), context / "rootfs" / library.lstrip("/"))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copyfile(source, target)
        target.chmod(0o755)
