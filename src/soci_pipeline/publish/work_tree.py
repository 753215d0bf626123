"""A folder on this machine as the source of a publication: its commit, or a snapshot of its files.

A folder of a git work tree without changes is published as its commit, so that its digests repeat on any machine.
Uncommitted files become a snapshot: a separate commit in a repository in the run's folder, with the files that `git
add` would add. The folder itself and its repository are only read.
"""

import contextlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from soci_pipeline.errors import InvalidInput, SourceError
from soci_pipeline.git.program import Git
from soci_pipeline.git.source import LATEST, ResolvedSource, commit_time, resolve
from soci_pipeline.git.special_files import check_special_files, special_kind
from soci_pipeline.log import logger
from soci_pipeline.publish.request import PublishRequest

_BRANCH = "refs/heads/snapshot"
_WHO = ("-c", "user.name=soci-pipeline", "-c", "user.email=snapshot@invalid", "-c", "commit.gpgsign=false")
_SHOWN = 10
# The mode of a commit of another repository in a tree.
_REPOSITORY = "160000 "


@dataclass(frozen=True, slots=True)
class WorkTree:
    """A folder on this machine: the top of its repository (None if there is none) and its path below that.

    ``head`` is the current commit, None if there is none yet. ``changes`` are the paths that differ from it.
    """

    folder: Path
    top: Path | None
    below: str
    head: str | None
    changes: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether the folder equals the current commit."""
        return self.head is not None and not self.changes

    @property
    def why_uncommitted(self) -> str | None:
        """Why the files are not those of a commit; None if they are."""
        if self.is_clean:
            return None
        if self.top is None:
            return f"{self.folder} is not in a git repository"
        if self.head is None:
            return f"{self.top} has no commit yet"
        more = f" and {len(self.changes) - _SHOWN} more" if len(self.changes) > _SHOWN else ""
        # A name can contain anything, including control sequences.
        names = (name if name.isprintable() else repr(name) for name in self.changes[:_SHOWN])
        return f"{self.folder} has uncommitted changes: {', '.join(names)}{more}"


def read_work_tree(path: Path) -> WorkTree:
    """Inspect a folder; raise `InvalidInput` if it does not exist, `SourceError` if git cannot read it."""
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise InvalidInput(
            f"SOURCE {str(path)!r} {what}", advice="Use a folder on this machine, or the URL of a git repository."
        )
    folder = path.resolve()
    check_special_files(folder)
    with Git.session() as git:
        top = _top(git, folder)
        if top is None:
            return WorkTree(folder, None, "", None, ())
        below = folder.relative_to(top).as_posix()
        below = "" if below == "." else below
        try:
            head = git.run("-C", str(top), "rev-parse", "--verify", "--quiet", "HEAD^{commit}").strip()
        except SourceError:
            return WorkTree(folder, top, below, None, ())
        return WorkTree(folder, top, below, head, tuple(_changes(git, folder)))


def check_folder(tree: WorkTree, request: PublishRequest) -> None:
    """Raise `InvalidInput` for a problem in the folder: a missing build file, or no git tag for ``{version}``."""
    for name in request.builder.needs:
        path = request.context if name == "context" else request.dockerfile_in_source
        reason = _why_unusable(tree.folder, path, is_folder=name == "context")
        if reason is not None:
            raise InvalidInput(
                f"--{name} {getattr(request, name)!r}: {reason}",
                advice="--context must be a folder in SOURCE, and --dockerfile a file in the context.",
            )
    templates = [tag for tag in request.tags if "{version}" in tag]
    if tree.is_clean and templates and not _git_tags(tree):
        raise InvalidInput(
            f"--tag {templates[0]!r}: {{version}} requires a git tag on the commit (for example v1.2.0); the commit "
            "has none",
            advice="Tag the commit (`git tag v1.2.0`), or use {short_sha} instead.",
        )


def _why_unusable(folder: Path, name: str, *, is_folder: bool) -> str | None:
    path = folder / name
    if not path.exists():
        return f"{folder} has no {name}"
    if path.is_dir() if is_folder else path.is_file():
        return None
    kind = special_kind(path) or ("a folder" if path.is_dir() else "a file")
    return f"{path} is {kind}, not a {'folder' if is_folder else 'regular file'}"


def _git_tags(tree: WorkTree) -> list[str]:
    with Git.session() as git:
        return git.run("-C", str(tree.folder), "tag", "--points-at", "HEAD").split()


def _top(git: Git, folder: Path) -> Path | None:
    try:
        found = git.run("-C", str(folder), "rev-parse", "--show-toplevel").removesuffix("\n")
    except SourceError:
        bare = next(filter(_is_git_folder, (folder, *folder.parents)), None)
        if bare is not None:
            what = "a bare git repository" if bare == folder else f"inside {bare}, a bare git repository"
            raise InvalidInput(
                f"SOURCE {str(folder)!r} is {what}, which has no files",
                advice=f"Clone it and use the folder of the clone, or use its URL: `file://{bare}`.",
            ) from None
        if any((parent / ".git").exists() for parent in (folder, *folder.parents)):
            # A repository of another user, or a damaged one.
            raise
        return None
    top = Path(found).resolve() if found else None
    if top is not None and not (folder.is_relative_to(top) and (top / ".git").exists()):
        raise InvalidInput(
            f"SOURCE {str(folder)!r}: the configuration of its git repository keeps the files elsewhere "
            "(core.worktree)",
            advice="Run `git config --unset core.worktree` there, or copy the files without .git.",
        )
    return top


def _is_git_folder(folder: Path) -> bool:
    """Whether a folder is itself a repository, by the entries that git requires there."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


def _changes(git: Git, folder: Path) -> Iterator[str]:
    words = iter(git.status(folder, "-z", "--", ".").split("\0"))
    for word in words:
        if word:
            yield word[3:]
            if word[0] in "RC":
                # Its earlier path.
                next(words, None)


def commit_of(tree: WorkTree, ref: str | None, *, files: Sequence[str]) -> ResolvedSource:
    """Resolve a ref of the work tree's repository, or its current commit; ``files`` are relative to its top.

    Raises as `soci_pipeline.git.source.resolve`.
    """
    if tree.top is None:
        raise InvalidInput(
            f"--ref {ref!r}: {tree.folder} is not in a git repository", advice="Omit --ref, or run `git init`."
        )
    return resolve(str(tree.top), ref, files=files)


def snapshot_of(tree: WorkTree, place: Path, *, files: Sequence[str]) -> ResolvedSource:
    """Commit the files of the folder to a new repository at ``place``; ``files`` are relative to the folder.

    The result has what `git add --all` adds: ignored, untracked files are omitted. Raises `SourceError` if one of
    ``files`` is missing.
    """
    top = tree.top or tree.folder
    with Git.session() as git:
        git.run_here("init", "--quiet", "--bare", *_object_format(git, tree), str(place))
        in_snapshot = ("--git-dir", str(place), "--work-tree", str(top))
        ignored = _ignored(git, tree, place)
        if tree.head is not None:
            (place / "objects" / "info" / "alternates").write_text(f"{_git_path(git, top, 'objects')}\n")
            # The tracked files first: one of them may be ignored by now.
            git.run_here(*in_snapshot, "read-tree", tree.head)
        moment = _newest(tree.folder) if tree.head is None else commit_time(git, place, tree.head)
        git.run_here("-C", str(top), *ignored, *in_snapshot, "add", "--all", "--", tree.below or ".")
        prefix = (f"--prefix={tree.below}/",) if tree.below else ()
        written = git.run_here(*in_snapshot, "write-tree", *prefix).strip()
        _name_nested(git.run_here(*in_snapshot, "ls-tree", "-r", "-z", written))
        # Without the @, git parses small numbers in another date format.
        dates = {"GIT_AUTHOR_DATE": f"@{moment} +0000", "GIT_COMMITTER_DATE": f"@{moment} +0000"}
        commit = git.run(*_WHO, *in_snapshot, "commit-tree", "-m", "snapshot", written, extra=dates).strip()
        git.run_here("--git-dir", str(place), "update-ref", _BRANCH, commit)
    return resolve(str(place), _BRANCH, files=files)


def _ignored(git: Git, tree: WorkTree, place: Path) -> tuple[str, ...]:
    """Return options so that the snapshot ignores what git ignores in the folder, apart from .gitignore files."""
    own = () if tree.top is None else ("-C", str(tree.top))
    try:
        excludes = git.run(*own, "config", "-z", "--type=path", "--get", "core.excludesFile").removesuffix("\0")
    except SourceError:
        # There is none.
        excludes = ""
    if tree.top is not None and (exclude := _git_path(git, tree.top, "info/exclude")).is_file():
        (place / "info").mkdir(exist_ok=True)
        (place / "info" / "exclude").write_bytes(exclude.read_bytes())
    return ("-c", f"core.excludesFile={excludes}") if excludes else ()


def _git_path(git: Git, top: Path, name: str) -> Path:
    found = git.run("-C", str(top), "rev-parse", "--path-format=absolute", "--git-path", name)
    return Path(found.removesuffix("\n"))


def _name_nested(listing: str) -> None:
    """Warn of repositories in a tree: git only stores the id of their commit."""
    names = [entry.partition("\t")[2] for entry in listing.split("\0") if entry.startswith(_REPOSITORY)]
    if names:
        shown = ", ".join(map(repr, names[:_SHOWN])) + (f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else "")
        logger().warning("not published, because they are separate git repositories: %s", shown)


def _object_format(git: Git, tree: WorkTree) -> tuple[str, ...]:
    if tree.head is None:
        return ()
    return (f"--object-format={git.run('-C', str(tree.top), 'rev-parse', '--show-object-format').strip()}",)


def _newest(folder: Path) -> int:
    """Return the time of the newest file in place of a commit's time: it stays the same until a file changes."""
    newest = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != ".git"]
        for name in files:
            # A file may be deleted in the meantime.
            with contextlib.suppress(FileNotFoundError):
                newest = max(newest, int(os.lstat(os.path.join(parent, name)).st_mtime))  # noqa: PTH118
    return min(newest, LATEST)


def below_top(tree: WorkTree, path: str) -> str:
    """Convert a path of the folder into one of the repository."""
    return posixpath.normpath(posixpath.join(tree.below or ".", path))
