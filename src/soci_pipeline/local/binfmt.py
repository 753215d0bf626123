"""Emulation of another architecture for RUN steps: qemu registered with the kernel only where it is missing.

The entry has a name of its own and the flag F: the kernel opens the interpreter once, at registration, so that it works
inside containers and namespaces that do not have the file.
"""

import contextlib
import platform
from collections.abc import Iterator
from pathlib import Path

from soci_pipeline.errors import ToolMissing
from soci_pipeline.local.toolchain import Toolchain
from soci_pipeline.log import logger
from soci_pipeline.machine.cgroups import mounted_filesystems
from soci_pipeline.machine.footprint import Footprint
from soci_pipeline.machine.programs import run
from soci_pipeline.oci.platform import Platform

_FOLDER = Path("/proc/sys/fs/binfmt_misc")
# Offset 0 of an ELF header (elf(5)): class 64, little endian, version 1; type EXEC or DYN; then the machine.
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00{machine}\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
_MACHINES = {"arm64": (r"\xb7", "qemu-aarch64-static"), "amd64": (r"\x3e", "qemu-x86_64-static")}
_NAMES = {"aarch64": "arm64", "x86_64": "amd64"}


@contextlib.contextmanager
def emulation(wanted: Platform, traces: Footprint, *, toolchain: Toolchain | None = None) -> Iterator[None]:
    """Have programs of a platform run on this machine while the ``with`` block lasts.

    Nothing is done where they run already. Needs root; raises `ToolMissing` for a platform that is not known here.
    """
    if can_run(wanted):
        yield
        return
    if wanted.architecture not in _MACHINES:
        raise ToolMissing(f"no emulator is known for {wanted}")
    machine, program = _MACHINES[wanted.architecture]
    tools = toolchain or Toolchain()
    tools.ensure(["qemu-user-static"])
    if not (_FOLDER / "register").exists():
        traces.record_mount(_FOLDER)
        run(["mount", "-t", "binfmt_misc", "binfmt_misc", _FOLDER], package="mount")
    entry = _FOLDER / f"soci-pipeline-{wanted.architecture}"
    traces.record_binfmt(entry)
    logger().info("registering %s for %s", program, wanted)
    line = f":{entry.name}:M::{_MAGIC.format(machine=machine)}:{_MASK}:{tools.program(program)}:F"
    try:
        (_FOLDER / "register").write_text(line)
        yield
    finally:
        if entry.exists():
            entry.write_text("-1")


def can_run(wanted: Platform) -> bool:
    """Whether this machine runs programs of a platform, natively or by a registered emulator."""
    if _NAMES.get(platform.machine()) == wanted.architecture:
        return True
    machine = _MACHINES.get(wanted.architecture)
    if machine is None or not any(kind == "binfmt_misc" for _, kind in mounted_filesystems()):
        return False
    # 02 00 is the type, then the machine.
    wanted_bytes = "0200" + machine[0].removeprefix(r"\x")
    return any(_emulates(entry, wanted_bytes) for entry in _FOLDER.iterdir())


def _emulates(entry: Path, wanted: str) -> bool:
    if entry.name in {"register", "status"}:
        return False
    lines = entry.read_text().splitlines()
    magic = next((line.removeprefix("magic ") for line in lines if line.startswith("magic ")), "")
    # Without F the interpreter would be looked for inside the container.
    found_early = any(line.startswith("flags:") and "F" in line for line in lines)
    return "enabled" in lines and found_early and magic.startswith("7f454c46") and magic[32:].startswith(wanted)
