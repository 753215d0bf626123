"""Which version of the flows a worker runs, and how it gets there: the pull step of every deployment.

A worker either has the project in a folder (`SOCI_PIPELINE_HOME`; the local stack, the worker image), or gets it from
git at one commit (`SOCI_PIPELINE_REPOSITORY` and `SOCI_PIPELINE_COMMIT`), kept for the next run. The parent of a
publication hands its own `identity` to its branches, and one whose flows differ refuses to run: two halves of an image
made by two versions of the pipeline would be hard to explain.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from soci_pipeline._version import __version__
from soci_pipeline.errors import InvalidInput, StackError
from soci_pipeline.git import address, source
from soci_pipeline.project import HOME, project_folder
from soci_pipeline.settings import Settings

REPOSITORY = "SOCI_PIPELINE_REPOSITORY"
COMMIT = "SOCI_PIPELINE_COMMIT"
EXPECTED_RELEASE = "SOCI_PIPELINE_RELEASE"
"""The identity that a parent expects of its branches."""

_PARTS = ("flows", "tasks")


def identity(folder: Path) -> str:
    """A short name for the version of the flows in a folder: of their bytes, and of the library's version."""
    state = hashlib.sha256(__version__.encode())
    for part in _PARTS:
        for path in sorted((folder / part).glob("*.py")):
            state.update(f"\0{part}/{path.name}\0".encode())
            state.update(path.read_bytes())
    return state.hexdigest()[:16]


def enter(repository: str | None = None, commit: str | None = None) -> dict[str, str]:
    """The pull step: answers with the folder to run in; Prefect changes into it.

    Environment variables of the run come before the arguments, which are what the deployment says. Raises `StackError`
    where the flows are not of the version that the parent expects.
    """
    repository = os.environ.get(REPOSITORY) or repository
    commit = os.environ.get(COMMIT) or commit
    folder = project_folder() if not repository or os.environ.get(HOME) else _fetched(repository, commit)
    here, expected = identity(folder), os.environ.get(EXPECTED_RELEASE)
    if expected and expected != here:
        raise StackError(
            f"the flows in {folder} are of version {here}, and the run that started this one has {expected}",
            advice="Bring all workers to the same version of the project, and start the publication again.",
        )
    return {"directory": str(folder)}


def _fetched(repository: str, commit: str | None) -> Path:
    if not commit:
        raise InvalidInput(f"{REPOSITORY} is set, and {COMMIT} is not", advice="Pin the commit of the pipeline.")
    # It becomes a part of a path before git has seen it.
    address.check_ref(commit)
    folder = Settings.from_environment().work.folder / "releases"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = folder / commit
    if place.is_dir():
        return place
    found = source.resolve(repository, commit)
    place = folder / found.commit
    if not place.is_dir():
        # Several runs may start at once on a new worker: each makes its own, the first to finish puts it in place.
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as partial:
            made = source.check_out(found, Path(partial) / "release")
            try:
                made.rename(place)
            except OSError:
                if not place.is_dir():
                    raise
                shutil.rmtree(made)
    return place
