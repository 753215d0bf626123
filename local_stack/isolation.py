"""Build a command line that runs a program in a private mount namespace in which some folders are hidden.

Workers on one machine share its disk, so code that works only on a shared disk would seem to work between machines. In
a separate namespace a worker does not see the others' folders. Needs root.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path


def isolated(argv: Sequence[str], *, hide: Sequence[Path], keep: Sequence[Path], aside: Path) -> list[str]:
    """Return ``argv`` behind a script that mounts empty file systems over folders, except for those to ``keep``.

    ``aside`` is an empty folder outside all hidden ones, where kept folders are mounted in the meantime.
    """
    lines = ["set -e", _line("mount", "-t", "tmpfs", "tmpfs", aside)]
    kept = [path for path in keep if path.exists() and any(path.is_relative_to(hidden) for hidden in hide)]
    for number, path in enumerate(kept):
        lines += [_line("mkdir", aside / str(number)), _line("mount", "--rbind", path, aside / str(number))]
    lines += [_line("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", path) for path in hide]
    for number, path in enumerate(kept):
        lines += [_line("mkdir", "-p", path), _line("mount", "--rbind", aside / str(number), path)]
    # The shell is still in the folder as it was before it was hidden; only a new lookup finds the new one.
    lines += ['cd "$PWD"', f"exec {shlex.join(argv)}"]
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines)]


def _line(*words: str | Path) -> str:
    return shlex.join(str(word) for word in words)
