"""What killed runs left on a worker: their working folders, and what they had made in Docker and containerd."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from soci_pipeline.build.buildx import remove_builder
from soci_pipeline.containerd.ctr import Containerd
from soci_pipeline.errors import SociPipelineError
from soci_pipeline.log import logger
from soci_pipeline.working_folder import BUILDER_RECORD, CONTAINERD_RECORD, PREFIX, abandoned


@dataclass(frozen=True, slots=True)
class Reaped:
    """What was removed: folders by path, buildx builders and containerd namespaces by name."""

    folders: tuple[Path, ...] = ()
    builders: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()


def reap(folder: Path, *, env: Mapping[str, str] | None = None) -> Reaped:
    """Remove the left-overs of killed runs from ``folder``; what belongs to a living run is not touched.

    A builder or namespace that cannot be removed now (its engine is down) keeps its folder, for the next attempt.
    """
    folders: list[Path] = []
    builders: list[str] = []
    namespaces: list[str] = []
    for path in sorted(folder.glob(f"{PREFIX}*")):
        if not path.is_dir() or path.is_symlink():
            continue
        with abandoned(path) as gone:
            if not gone:
                continue
            try:
                builders += _reap_builders(path, env)
                namespaces += _reap_namespaces(path, env)
            except SociPipelineError as error:
                logger().warning("what the ended run of %s made could not be removed: %s", path, error.reason)
                continue
            shutil.rmtree(path, ignore_errors=True)
            folders.append(path)
            logger().info("removed %s, left by a run that was killed", path)
    return Reaped(tuple(folders), tuple(builders), tuple(namespaces))


def _reap_builders(path: Path, env: Mapping[str, str] | None) -> list[str]:
    names = [record.strip() for record in _records(path, BUILDER_RECORD)]
    ours = [name for name in names if name.startswith(PREFIX)]
    for name in ours:
        remove_builder(name, env=env)
    return ours


def _reap_namespaces(path: Path, env: Mapping[str, str] | None) -> list[str]:
    removed: list[str] = []
    for record in _records(path, CONTAINERD_RECORD):
        socket, _, name = record.strip().partition("\n")
        # A containerd that is gone has taken its namespaces with it, or will be asked again when it is back.
        if name.startswith(PREFIX) and Path(socket).exists():
            Containerd(Path(socket), name, dict(os.environ if env is None else env)).purge()
            removed.append(name)
    return removed


def _records(path: Path, name: str) -> Iterator[str]:
    """What the files of that name say below a folder, from which others may be removing things."""
    for parent, _, files in os.walk(path):
        if name in files:
            with contextlib.suppress(FileNotFoundError):
                yield (Path(parent) / name).read_text()
