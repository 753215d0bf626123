"""A command line that runs a program in a private mount namespace in which some folders are hidden.

Two workers on one machine share its disk, and then what only works on one disk seems to work between machines. In a
namespace of its own a worker sees nothing of the others' folders. Needs root.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path


def isolated(argv: Sequence[str], *, hide: Sequence[Path], keep: Sequence[Path], aside: Path) -> list[str]:
    """``argv`` behind a script that hides folders (an empty file system lies over each) but for those to ``keep``.

    ``aside`` is an empty folder outside of all that is hidden; kept folders are held there meanwhile.
    """
    lines = ["set -e", _line("mount", "-t", "tmpfs", "tmpfs", aside)]
    kept = [path for path in keep if path.exists() and any(path.is_relative_to(hidden) for hidden in hide)]
    for number, path in enumerate(kept):
        lines += [_line("mkdir", aside / str(number)), _line("mount", "--rbind", path, aside / str(number))]
    lines += [_line("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", path) for path in hide]
    for number, path in enumerate(kept):
        lines += [_line("mkdir", "-p", path), _line("mount", "--rbind", aside / str(number), path)]
    # The shell stands in the folder as it was before it was hidden; only a new look-up sees the new one.
    lines += ['cd "$PWD"', f"exec {shlex.join(argv)}"]
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines)]


def _line(*words: str | Path) -> str:
    return shlex.join(str(word) for word in words)
