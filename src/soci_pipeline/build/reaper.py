"""What killed runs left on a worker: their working folders, and the buildx builders that they had made."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from soci_pipeline.build.buildx import remove_builder
from soci_pipeline.build.working_folder import BUILDER_RECORD, PREFIX, abandoned
from soci_pipeline.errors import SociPipelineError
from soci_pipeline.process import logger


@dataclass(frozen=True, slots=True)
class Reaped:
    """What was removed: folders by path, builders by name."""

    folders: tuple[Path, ...] = ()
    builders: tuple[str, ...] = ()


def reap(folder: Path, *, env: Mapping[str, str] | None = None) -> Reaped:
    """Remove the left-overs of killed runs from ``folder``; what belongs to a living run is not touched.

    A builder that cannot be removed now (its engine is down) keeps its folder, for the next attempt.
    """
    folders: list[Path] = []
    builders: list[str] = []
    for path in sorted(folder.glob(f"{PREFIX}*")):
        if not path.is_dir() or path.is_symlink():
            continue
        with abandoned(path) as gone:
            if not gone:
                continue
            try:
                builders += _reap_builders(path, env)
            except SociPipelineError as error:
                logger().warning("a builder of an ended run could not be removed: %s", error.reason)
                continue
            shutil.rmtree(path, ignore_errors=True)
            folders.append(path)
            logger().info("removed %s, left by a run that was killed", path)
    return Reaped(tuple(folders), tuple(builders))


def _reap_builders(path: Path, env: Mapping[str, str] | None) -> list[str]:
    removed: list[str] = []
    for record in sorted(path.rglob(BUILDER_RECORD)):
        name = record.read_text().strip()
        if name.startswith(PREFIX):
            remove_builder(name, env=env)
            removed.append(name)
    return removed
