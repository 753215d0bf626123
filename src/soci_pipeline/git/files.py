"""Which files a fetched commit has, without their contents; only the targets of symbolic links are fetched for that."""

import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from soci_pipeline.errors import SourceError
from soci_pipeline.git.program import Git

_LINK = "120000"
# As many as Linux follows.
_MAX_LINKS = 40
_ADVICE = "Check `context`, which starts at the top of the repository, and `dockerfile`, at the context."
_OUTSIDE = "Everything that a build reads must be inside the repository: copy it there, or remove the link."


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one commit in the repository ``folder``, which was fetched from ``url`` without them."""

    git: Git
    folder: Path
    url: str
    commit: str

    def check(self, paths: Sequence[str]) -> None:
        """Raise `SourceError` for the first path that the commit does not have, or that a link leads out of it."""
        for path in paths:
            if not self._has(path):
                raise SourceError(f"commit {self.commit[:12]} of {self.url} has no {path}", advice=_ADVICE)

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
        """The mode and the object of a path; no mode where there is none."""
        line = self.git.run_here("-C", str(self.folder), "ls-tree", "--full-tree", "-z", self.commit, "--", path)
        mode, _, rest = line.partition(" ")
        return mode or None, rest.partition("\t")[0].rpartition(" ")[2]

    def _target(self, blob: str) -> str:
        """Where a symbolic link leads. The blobs of links are fetched with the other small ones."""
        with tempfile.TemporaryDirectory(prefix="links-", dir=self.folder) as links:
            self.git.fetch_small_files(Path(links), self.url, self.commit)
            return self.git.run_here("-C", links, "cat-file", "blob", blob)

    def _outside(self, path: str) -> SourceError:
        return SourceError(
            f"{path} of commit {self.commit[:12]} of {self.url} leads out of the repository, or in a circle",
            advice=_OUTSIDE,
        )
