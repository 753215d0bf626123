"""Remove what killed runs left on a worker: working folders, and what they created in Docker and containerd."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from soci_pipeline.errors import SociPipelineError
from soci_pipeline.log import logger
from soci_pipeline.machine.working_folder import PREFIX, abandoned

Remover = Callable[[str, Mapping[str, str] | None], str | None]
"""Removes what a record's text names, with an environment for the programs that it needs.

Returns the name of what was removed, or None.
"""


@dataclass(frozen=True, slots=True)
class Reaped:
    """What was removed: folders by path; builders, namespaces and so on by the file name of their records."""

    folders: tuple[Path, ...] = ()
    removed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def reap(folder: Path, removers: Mapping[str, Remover], *, env: Mapping[str, str] | None = None) -> Reaped:
    """Remove the leftovers of killed runs from ``folder``; those of live runs are not touched.

    ``removers`` is keyed by the file name of each kind of record. If something cannot be removed now (its engine is
    down), its folder is kept for the next attempt.
    """
    folders: list[Path] = []
    removed: dict[str, list[str]] = {name: [] for name in removers}
    for path in sorted(folder.glob(f"{PREFIX}*")):
        if not path.is_dir() or path.is_symlink():
            continue
        with abandoned(path) as gone:
            if not gone:
                continue
            try:
                for name, remove in removers.items():
                    found = (remove(record, env) for record in _records(path, name))
                    removed[name] += [each for each in found if each is not None]
            except SociPipelineError as error:
                logger().warning("cannot remove what the run of %s left behind: %s", path, error.reason)
                continue
            shutil.rmtree(path, ignore_errors=True)
            folders.append(path)
            logger().info("removed %s, left over from a killed run", path)
    return Reaped(tuple(folders), {name: tuple(names) for name, names in removed.items()})


def _records(path: Path, name: str) -> Iterator[str]:
    """Yield the contents of the files of that name below a folder; others may be deleting files there."""
    for parent, _, files in os.walk(path):
        if name in files:
            with contextlib.suppress(FileNotFoundError):
                yield (Path(parent) / name).read_text()
