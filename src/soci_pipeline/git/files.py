"""Check which files a fetched commit has without their contents; only targets of symbolic links are fetched."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

from soci_pipeline.errors import SourceError
from soci_pipeline.git.program import Git

_LINK = "120000"
# Linux follows as many.
_MAX_LINKS = 40
_ADVICE = (
    "Check `context`, which is relative to the top of the repository, and `dockerfile`, which is relative to `context`."
)
_OUTSIDE = "Everything that a build reads must be in the repository: copy it there, or remove the link."


class Files:
    """The files of one commit in the repository ``folder``, which was fetched from ``url`` without file contents.

    Each entry and each link is looked up in git only once, however many paths lead through it, so link cycles are
    cheap.
    """

    def __init__(self, git: Git, folder: Path, url: str, commit: str) -> None:
        self._git = git
        self._folder = folder
        self._url = url
        self._commit = commit
        self._entries: dict[str, tuple[str | None, str]] = {}
        self._targets: dict[str, str] = {}

    def check(self, paths: Sequence[str]) -> None:
        """Raise `SourceError` for the first path that the commit lacks or that a link leads out of the repository."""
        for path in paths:
            if not self._has(path):
                raise SourceError(f"commit {self._commit[:12]} of {self._url} has no {path}", advice=_ADVICE)

    def _has(self, path: str) -> bool:
        left, at, links = deque(path.split("/")), list[str](), 0
        while left:
            part = left.popleft()
            if part in ("", "."):
                continue
            if part == "..":
                if not at:
                    raise self._outside(path)
                at.pop()
                continue
            mode, blob = self._entry("/".join((*at, part)))
            if mode is None:
                return False
            if mode != _LINK:
                at.append(part)
                continue
            target = self._target(blob)
            links += 1
            if target.startswith("/") or links > _MAX_LINKS:
                raise self._outside(path)
            left.extendleft(reversed(target.split("/")))
        return True

    def _entry(self, path: str) -> tuple[str | None, str]:
        """Return the mode and object id of a path; the mode is None if the path does not exist."""
        if path not in self._entries:
            tree = ("ls-tree", "--full-tree", "-z", self._commit, "--", path)
            mode, _, rest = self._git.run_here("-C", str(self._folder), *tree).partition(" ")
            self._entries[path] = mode or None, rest.partition("\t")[0].rpartition(" ")[2]
        return self._entries[path]

    def _target(self, blob: str) -> str:
        """Return the target of a symbolic link. The first call fetches all small blobs into ``links``."""
        if blob not in self._targets:
            links = self._folder / "links"
            if not self._targets:
                links.mkdir()
                self._git.fetch_small_files(links, self._url, self._commit)
            self._targets[blob] = self._git.run_here("-C", str(links), "cat-file", "blob", blob)
        return self._targets[blob]

    def _outside(self, path: str) -> SourceError:
        return SourceError(
            f"{path} of commit {self._commit[:12]} of {self._url} points outside of the repository, or forms a loop",
            advice=_OUTSIDE,
        )
