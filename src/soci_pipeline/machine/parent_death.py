"""Let the kernel end programs when the process that waits for them is killed: PR_SET_PDEATHSIG of prctl(2).

`setpriv` of util-linux sets it and then becomes the program. The alternative is Python code between fork and exec, for
which Python copies the page tables of the whole process: ten milliseconds at 250 MB, while setpriv takes less than one.

setpriv must not be used for files that the kernel cannot execute. Like execvp(3), it runs those with a shell, and the
error would be about the lines of a file that is not a script. So it starts only programs whose ELF header matches
Python's own, and scripts for such an interpreter.
"""

import functools
import re
import shutil
import subprocess
from pathlib import Path

from soci_pipeline.log import logger

_ELF, _SCRIPT = b"\x7fELF", b"#!"
_HEADER = 256
_PROBE_SECONDS = 10.0
# setpriv's exit statuses for a program that it could not execute.
_NOT_EXECUTED = (126, 127)


def with_parent(argv: list[str]) -> list[str] | None:
    """Return the command that starts a program with setpriv; None if setpriv is missing, too old or unsuitable."""
    setpriv, program = _setpriv(), Path(argv[0])
    # A relative path is relative to the program's working folder, not to ours.
    if setpriv is None or not program.is_absolute() or not _is_native(program):
        return None
    return [*setpriv, *argv]


def not_executed(program: str, status: int, stderr: str) -> str | None:
    """Return why setpriv could not execute a program; None if it could."""
    if status not in _NOT_EXECUTED:
        return None
    # The words in between depend on the user's language.
    found = re.fullmatch(rf"setpriv: .*{re.escape(program)}\W*: (.+)\n?", stderr)
    return found and found[1]


@functools.cache
def _setpriv() -> tuple[str, ...] | None:
    # Not the program's PATH, which comes from the caller and may contain anything.
    found = shutil.which("setpriv", path="/usr/bin:/bin")
    if found is None:
        return None
    start = (found, "--pdeathsig", "TERM", "--")
    try:
        done = subprocess.run([*start, found, "--version"], check=False, capture_output=True, timeout=_PROBE_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger().debug("%s cannot be used: %s", found, error)
        return None
    return start if done.returncode == 0 else None


def _is_native(program: Path) -> bool:
    header = _header(program)
    if header.startswith(_SCRIPT):
        words = header.splitlines()[0].removeprefix(_SCRIPT).split()
        header = _header(Path(words[0].decode(errors="surrogateescape"))) if words else b""
    return header.startswith(_ELF) and _machine(header) == _machine(_header(Path("/proc/self/exe")))


def _machine(header: bytes) -> tuple[bytes, bytes]:
    """Return the ELF header fields (elf(5)) that all programs of a machine share: class, byte order and e_machine."""
    return header[4:6], header[18:20]


def _header(path: Path) -> bytes:
    """Return the first bytes of a file; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_HEADER)
    except (OSError, ValueError):
        return b""
