"""Emulate another architecture for RUN steps: register qemu with the kernel if it is missing.

The entry has a unique name and the flag F: the kernel opens the interpreter once, at registration, so that it works
inside containers and namespaces that do not have the file.
"""

import contextlib
from collections.abc import Iterator

from local_stack.footprint import Footprint
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import ToolMissing
from soci_pipeline.log import logger
from soci_pipeline.machine import emulation as kernel
from soci_pipeline.machine.programs import run
from soci_pipeline.oci.platform import Platform

# Offset 0 of an ELF header (elf(5)): class 64, little endian, version 1; type EXEC or DYN; then the machine.
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x{machine}\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
_PROGRAMS = {"arm64": "qemu-aarch64-static", "amd64": "qemu-x86_64-static"}


@contextlib.contextmanager
def emulation(wanted: Platform, traces: Footprint, *, toolchain: Toolchain | None = None) -> Iterator[None]:
    """Enable programs of a platform on this machine during the ``with`` block, unless they run already.

    Needs root; raises `ToolMissing` for an unknown platform.
    """
    if kernel.can_run(wanted.architecture):
        yield
        return
    program = _PROGRAMS.get(wanted.architecture)
    if program is None:
        raise ToolMissing(f"there is no emulator for {wanted}")
    tools = toolchain or Toolchain()
    tools.ensure(["qemu-user-static"])
    if not (kernel.FOLDER / "register").exists():
        traces.record_mount(kernel.FOLDER)
        run(["mount", "-t", "binfmt_misc", "binfmt_misc", kernel.FOLDER], package="mount")
    entry = kernel.FOLDER / f"soci-pipeline-{wanted.architecture}"
    traces.record_binfmt(entry)
    logger().info("registering %s for %s", program, wanted)
    magic = _MAGIC.format(machine=kernel.MACHINES[wanted.architecture])
    line = f":{entry.name}:M::{magic}:{_MASK}:{tools.program(program)}:F"
    try:
        (kernel.FOLDER / "register").write_text(line)
        yield
    finally:
        if entry.exists():
            entry.write_text("-1")
