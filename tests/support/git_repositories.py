"""Git repositories created in code with fixed dates, optionally served over git's own protocol."""

import functools
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from local_stack.git_server import git_server
from soci_pipeline.git.config import ISOLATED
from soci_pipeline.machine.programs import run

MOMENT = 1_700_000_000


@dataclass(frozen=True)
class Repository:
    """A work tree; ``git`` runs in it, with additional variables if given."""

    path: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def git(self, *arguments: str, at: int = MOMENT) -> str:
        dates = {"GIT_AUTHOR_DATE": f"{at} +0000", "GIT_COMMITTER_DATE": f"{at} +0000"}
        plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        who = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
        env = {**plain, **dates, **self.variables}
        return run(["git", *who, *arguments], cwd=self.path, env=env).stdout.strip()

    def commit(self, files: Mapping[str, str], *, message: str = "change", at: int = MOMENT) -> str:
        """Write some files and commit them; return the commit."""
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message, at=at)
        return self.git("rev-parse", "HEAD")


def repository(path: Path, files: Mapping[str, str] | None = None) -> Repository:
    """Create a repository with one commit on the branch ``main``; git creates it once, further ones are copies."""
    path.mkdir(parents=True)
    for name, (mode, content) in _first_commit(tuple((files or {"Dockerfile": "FROM scratch\n"}).items())).items():
        if content is None:
            (path / name).mkdir(mode)
        else:
            (path / name).write_bytes(content)
            (path / name).chmod(mode)
    return Repository(path)


@functools.cache
def _first_commit(files: tuple[tuple[str, str], ...]) -> dict[Path, tuple[int, bytes | None]]:
    """Return the mode and content of each file of such a repository, parents first; no content for a folder."""
    with tempfile.TemporaryDirectory(prefix="soci-repository-") as folder:
        made = Repository(Path(folder), ISOLATED)
        made.git("init", "--quiet", "--initial-branch=main", "--template=")
        made.commit(dict(files))
        found = sorted(made.path.rglob("*"))
        return {
            each.relative_to(folder): (stat.S_IMODE(each.stat().st_mode), None if each.is_dir() else each.read_bytes())
            for each in found
        }


@contextmanager
def served(folder: Path, source: Repository, name: str = "app") -> Iterator[str]:
    """Yield the URL of the repository on a server with its current refs."""
    with git_server(folder) as server:
        yield server.serve(source.path, name).url
