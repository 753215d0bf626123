"""Find out which architectures this machine can run: its own, and those with an emulator registered in the kernel."""

import platform
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
FOLDER = Path("/proc/sys/fs/binfmt_misc")
MACHINES = {"arm64": "b7", "amd64": "3e"}
"""``e_machine`` of the ELF header (elf(5)) by architecture, in hexadecimal; its second byte is zero."""
_NAMES = {"aarch64": "arm64", "x86_64": "amd64"}


def can_run(architecture: str) -> bool:
    """Whether this machine runs programs of an architecture, natively or with a registered emulator."""
    if _NAMES.get(platform.machine()) == architecture:
        return True
    machine = MACHINES.get(architecture)
    if machine is None or not any(kind == "binfmt_misc" for _, kind in mounted_filesystems()):
        return False
    # 02 00 is the type, followed by the machine.
    return any(_emulates(entry, f"0200{machine}") for entry in FOLDER.iterdir())


def mounted_filesystems() -> list[tuple[str, str]]:
    """Return mount points and file system types of this mount namespace, in order of mounting."""
    fields = (line.split() for line in MOUNTS.read_text().splitlines())
    return [(words[1], words[2]) for words in fields if len(words) > 2]


def _emulates(entry: Path, wanted: str) -> bool:
    if entry.name in {"register", "status"}:
        return False
    lines = entry.read_text().splitlines()
    magic = next((line.removeprefix("magic ") for line in lines if line.startswith("magic ")), "")
    # Without F, the kernel would look for the interpreter inside the container.
    found_early = any(line.startswith("flags:") and "F" in line for line in lines)
    return "enabled" in lines and found_early and magic.startswith("7f454c46") and magic[32:].startswith(wanted)
