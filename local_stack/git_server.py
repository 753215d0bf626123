"""Serve git work trees to the workers over loopback, read-only, with git's own daemon."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_stack.ports import LOOPBACK, free_port, listens, wait_until
from soci_pipeline.errors import InvalidInput, SourceError, ToolFailed
from soci_pipeline.git.config import ISOLATED, OPTIONS, init_options
from soci_pipeline.git.program import Git, plain_environment
from soci_pipeline.machine.programs import background, run

_START_SECONDS = 20.0
_WHO = ("-c", "user.name=soci-pipeline", "-c", "user.email=soci-pipeline@localhost")


@dataclass(frozen=True, slots=True)
class Served:
    """A repository that the daemon serves: its URL, and the commit of its default branch."""

    url: str
    commit: str


@dataclass(frozen=True, slots=True)
class GitServer:
    """The daemon; `serve` adds repositories while it runs."""

    folder: Path
    port: int
    env: Mapping[str, str] = field(repr=False)

    def serve(self, work_tree: Path, name: str, *, used: str = ".") -> Served:
        """Serve the commits of a work tree: its branches, its tags, and its current commit by default.

        Uncommitted changes below the path ``used`` cause a warning and are left out. Raises `SourceError` if there is
        no commit.
        """
        if not self._succeeds("-C", str(work_tree), "rev-parse", "--verify", "--quiet", "HEAD^{commit}"):
            raise SourceError(f"{work_tree} is not a git work tree with a commit", advice="Commit the source first.")
        Git(self.env).name_uncommitted(work_tree, used)
        commit = self._git("-C", str(work_tree), "rev-parse", "HEAD").strip()
        bare = self._bare(name, commit)
        self._git(
            "-C",
            str(bare),
            "fetch",
            "--quiet",
            "--update-head-ok",
            "--update-shallow",
            str(work_tree.absolute()),
            *_EVERYTHING,
        )
        return self._default(bare, commit)

    def serve_snapshot(self, tree: Path, name: str, *, message: str = "Snapshot") -> Served:
        """Serve the current files of a folder as one commit whose id depends only on their content.

        In a git work tree these are the files that git does not ignore, including uncommitted ones.
        """
        bare = self._bare(name)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index"), "GIT_DIR": str(bare), "GIT_WORK_TREE": str(tree)}
            self._git("add", "--all", ".", cwd=tree, extra=index)
            written = self._git("write-tree", extra=index).strip()
            commit = self._git(*_WHO, "commit-tree", "-m", message, written, extra=index | _FIXED_DATES).strip()
        served = self._default(bare, commit)
        # Packed here once: git would pack loose objects again for every clone, and each flow run makes one.
        self._git("-C", str(bare), "repack", "-a", "-d", "--quiet")
        return served

    def _default(self, bare: Path, commit: str) -> Served:
        self._git("-C", str(bare), "update-ref", "refs/heads/served", commit)
        self._git("-C", str(bare), "symbolic-ref", "HEAD", "refs/heads/served")
        return Served(url=f"git://{LOOPBACK}:{self.port}/{bare.name}", commit=commit)

    def _bare(self, name: str, commit: str = "") -> Path:
        """Create an empty repository with object names as long as ``commit``."""
        if not name.replace("-", "").isalnum():
            raise InvalidInput(f"not a valid name for a served repository: {name!r}")
        bare = self.folder / "repositories" / f"{name}.git"
        shutil.rmtree(bare, ignore_errors=True)
        self._git("init", "--quiet", "--bare", *init_options(commit), str(bare), extra=ISOLATED)
        # A worker fetches one commit and only its files.
        for option in ("allowAnySHA1InWant", "allowFilter"):
            self._git("-C", str(bare), "config", f"uploadpack.{option}", "true")
        return bare

    def _git(self, *arguments: str, cwd: Path | None = None, extra: Mapping[str, str] | None = None) -> str:
        argv = ["git", *OPTIONS, *arguments]
        return run(argv, package="git", env=dict(self.env) | dict(extra or {}), cwd=cwd, timeout=300).stdout

    def _succeeds(self, *arguments: str) -> bool:
        try:
            self._git(*arguments)
        except ToolFailed:
            return False
        return True


_EVERYTHING = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/heads/served")
_FIXED_DATES = {"GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z"}


@contextlib.contextmanager
def git_server(folder: Path, *, env: Mapping[str, str] | None = None) -> Iterator[GitServer]:
    """Serve the repositories below ``folder/repositories`` on a free port of the loopback interface."""
    repositories = folder / "repositories"
    repositories.mkdir(parents=True, exist_ok=True)
    environment = plain_environment(os.environ if env is None else env)
    port = free_port()
    log = folder / "git.log"
    log.unlink(missing_ok=True)
    address = ["--reuseaddr", f"--listen={LOOPBACK}", f"--port={port}"]
    argv = ["git", "daemon", *address, "--export-all", f"--base-path={repositories}", str(repositories)]
    with background(argv, package="git", env=environment, log=log) as child:
        wait_until(lambda: listens(port), what="git daemon", child=child, log=log, seconds=_START_SECONDS)
        yield GitServer(folder=folder, port=port, env=environment)
