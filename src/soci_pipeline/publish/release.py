"""The version of the flows that a worker runs, and how the worker gets it: the pull step of every deployment.

A worker either has the project in a folder (`SOCI_PIPELINE_HOME`; the local stack, the worker image), or fetches it
from git at one commit (`SOCI_PIPELINE_REPOSITORY` and `SOCI_PIPELINE_COMMIT`), kept for the next run. The parent of a
publication passes its `identity` to its branches, and a branch with different flows fails: an image whose platforms
come from two versions of the pipeline would be hard to explain.
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
    """Return a short name for the version of the flows in a folder, from their bytes and the library's version."""
    state = hashlib.sha256(__version__.encode())
    for part in _PARTS:
        for path in sorted((folder / part).glob("*.py")):
            state.update(f"\0{part}/{path.name}\0".encode())
            state.update(path.read_bytes())
    return state.hexdigest()[:16]


def enter(repository: str | None = None, commit: str | None = None) -> dict[str, str]:
    """The pull step: return the folder to run in, to which Prefect then changes.

    Environment variables of the run take precedence over the arguments, which are those of the deployment. Raises
    `StackError` if the flows do not have the version that the parent expects.
    """
    repository = os.environ.get(REPOSITORY) or repository
    commit = os.environ.get(COMMIT) or commit
    folder = project_folder() if not repository or os.environ.get(HOME) else _fetched(repository, commit)
    here, expected = identity(folder), os.environ.get(EXPECTED_RELEASE)
    if expected and expected != here:
        raise StackError(
            f"the flows in {folder} have the version {here}, but the run that started this one has {expected}",
            advice="Update all workers to the same version of the project, and start the publication again.",
        )
    return {"directory": str(folder)}


def _fetched(repository: str, commit: str | None) -> Path:
    if not commit:
        raise InvalidInput(
            f"{REPOSITORY} is set, but {COMMIT} is not", advice="Set it to the commit of the pipeline to pin."
        )
    # It becomes part of a path before git validates it.
    address.check_ref(commit)
    folder = Settings.from_environment().work.folder / "releases"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = folder / commit
    if place.is_dir():
        return place
    found = source.resolve(repository, commit)
    place = folder / found.commit
    if not place.is_dir():
        # Several runs may start at once on a new worker: each creates its own, and the first to finish renames it.
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as partial:
            made = source.check_out(found, Path(partial) / "release")
            try:
                made.rename(place)
            except OSError:
                if not place.is_dir():
                    raise
                shutil.rmtree(made)
    return place
