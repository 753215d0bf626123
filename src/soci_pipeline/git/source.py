"""The source of a build: a ref is resolved to a commit once, and every branch fetches exactly that commit.

URLs and refs that could be read as options, or that name a transport that runs commands, are rejected (`git.address`);
`git.program` restricts git itself. Submodules are not fetched. Git LFS files are fetched if git-lfs is installed.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, field_validator

from soci_pipeline.errors import InvalidInput, SourceError
from soci_pipeline.git import lfs
from soci_pipeline.git.address import check_ref, check_url, is_commit
from soci_pipeline.git.ancestry import Ancestry
from soci_pipeline.git.errors import no_such_ref
from soci_pipeline.git.files import Files
from soci_pipeline.git.program import Git, remote
from soci_pipeline.git.sign_in import GitCredentials
from soci_pipeline.git.special_files import check_special_files
from soci_pipeline.log import logger

LATEST = 253_402_300_799
"""The last second of the year 9999, in Unix seconds: the latest date that annotations support."""

_ABBREVIATED = re.compile(r"[0-9a-f]{7,63}\Z")


class ResolvedSource(BaseModel):
    """One commit of one repository. ``commit_time`` is Unix seconds; ``version`` comes from a tag on the commit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    ref: str
    """The resolved name: ``refs/heads/main``, ``refs/tags/v1.2``, or the commit itself."""
    commit: str
    commit_time: int
    version: str | None = None
    branch: str | None = None
    """The ref whose head is the commit, never a tag: `ref` itself, or a branch that points to the commit now."""
    default_branch: str | None = None
    """The full name of the source's default branch, if the server reports it."""

    @field_validator("commit")
    @classmethod
    def _commit_is_a_whole_one(cls, commit: str) -> str:
        if not is_commit(commit):
            raise ValueError(f"not a commit id: {commit[:100]!r}")
        return commit

    @field_validator("url")
    @classmethod
    def _url_is_safe_for_git(cls, url: str) -> str:
        try:
            return check_url(url)
        except InvalidInput as error:
            raise ValueError(error.reason) from error


def resolve(
    url: str, ref: str | None = None, *, files: Sequence[str] = (), credentials: GitCredentials | None = None
) -> ResolvedSource:
    """Resolve ``ref`` (None: the default branch) to a commit, and return it with its date.

    ``files`` must exist in it; this fetches none of their contents. Raises `SourceError` if the repository, the ref or
    a file does not exist, credentials are rejected, or a name is both a branch and a tag of different commits; with
    ``temporary`` set if the host did not answer.
    """
    given = check_url(url)
    _name_uncommitted(given)
    with remote(given, credentials) as (git, address):
        refs = git.remote_refs(address)
        found, commit = _choose(refs, check_ref(ref) if ref else None, given)
        with tempfile.TemporaryDirectory(prefix="soci-resolve-") as folder:
            if commit is None:
                found = commit = git.expand(Path(folder), address, found)
            git.fetch(Path(folder), address, commit, blobs=False)
            Files(git, Path(folder), address, commit).check(files)
            time = commit_time(git, Path(folder), commit)
    return ResolvedSource(
        url=given,
        ref=found,
        commit=commit,
        commit_time=time,
        version=_version(refs, found, commit),
        branch=_branch(refs, found, commit),
        default_branch=refs.get("ref: HEAD"),
    )


def commit_time(git: Git, repository: Path, commit: str) -> int:
    """Return the commit date in Unix seconds; raise `SourceError` if it is not between the years 1970 and 9999.

    The author of a commit can choose any date, and git prints nothing for a malformed one.
    """
    text = git.run_here("--git-dir", str(repository), "show", "-s", "--format=%ct", commit).strip()
    if not text.isdecimal() or int(text[:20]) > LATEST:
        raise SourceError(
            f"commit {commit[:12]} has no valid date: {text[:40]!r}",
            advice="Create the commit again; its date becomes the date of the image.",
        )
    return int(text)


def check_out(source: ResolvedSource, folder: Path, *, credentials: GitCredentials | None = None) -> Path:
    """Put the files of the commit into ``folder`` (created; must not exist), without git's own data.

    Modes and times depend only on the commit, so that a build that copies everything is reproducible. Raises as
    `resolve`.
    """
    with remote(source.url, credentials) as (git, address):
        beside = folder.parent.absolute()
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=beside))
        with tempfile.TemporaryDirectory(prefix=".git-", dir=beside) as data:
            git.fetch(Path(data), address, source.commit, blobs=True)
            # Without credentials: a filter configured on the machine may use URLs from the commit's files.
            with Git.session() as local:
                local.check_out(Path(data), partial, source.commit)
            lfs.fill_in(git, Path(data).absolute(), partial, address, source.commit)
    if (partial / ".gitmodules").exists():
        logger().warning("the source has submodules; they are not fetched")
    _normalise(partial, source.commit_time)
    partial.rename(folder)
    return folder


def is_ancestor(url: str, older: str, newer: str, *, credentials: GitCredentials | None = None) -> bool | None:
    """Whether one commit is an ancestor of another; None if the repository does not have both (any more)."""
    with Ancestry(url, lambda: credentials) as ancestry:
        return ancestry(older, newer)


def _choose(refs: Mapping[str, str], ref: str | None, url: str) -> tuple[str, str | None]:
    """Return the full name of the ref and its commit; the commit is None for an abbreviated id."""
    if ref is None:
        if "HEAD" not in refs:
            raise SourceError(f"{url} has no default branch", advice="Set `ref` to a branch, tag or commit.")
        return refs.get("ref: HEAD", refs["HEAD"]), refs["HEAD"]
    names = [ref] if ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
    # An annotated tag is a separate object; its commit is listed under the name with ^{}.
    found = {name: refs.get(f"{name}^{{}}", refs[name]) for name in names if name in refs}
    if len(set(found.values())) > 1:
        advice = f"Use {names[0]} or {names[1]}."
        raise SourceError(f"{ref} is both a branch and a tag of {url}, with different commits", advice=advice)
    if found:
        return next(iter(found.items()))
    # Ids in a SHA-256 repository are longer, so 40 digits are an abbreviated id there.
    digits = max((len(value) for value in refs.values() if is_commit(value)), default=0)
    if is_commit(ref) and len(ref) >= digits:
        return ref, ref
    if _ABBREVIATED.match(ref):
        return ref, None
    raise no_such_ref(ref, url)


def _branch(refs: Mapping[str, str], found: str, commit: str) -> str | None:
    """Return the requested ref if it is not a tag or commit; else a branch with that head, the default one first."""
    if found.startswith("refs/") and not found.startswith("refs/tags/"):
        return found
    heads = sorted(name for name, value in refs.items() if name.startswith("refs/heads/") and value == commit)
    default = refs.get("ref: HEAD")
    return default if default in heads else next(iter(heads), None)


def _version(refs: Mapping[str, str], found: str, commit: str) -> str | None:
    """Return the version named by a tag on the commit; the requested tag takes precedence."""
    tags = [
        name.removesuffix("^{}") for name, value in refs.items() if value == commit and name.startswith("refs/tags/")
    ]
    names = [found] if found.startswith("refs/tags/") else tags
    versions = [re.sub(r"^v(?=[0-9])", "", name.removeprefix("refs/tags/")) for name in names]
    numbered = [version for version in versions if re.match(r"[0-9]+(\.[0-9]+)*", version)]

    def order(version: str) -> tuple[tuple[int, ...], bool, str]:
        number = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
        digits = number.group() if number else "0"
        # A release sorts above its own release candidates.
        return tuple(int(part) for part in digits.split(".")), version == digits, version

    return max(numbered, key=order, default=versions[0] if found.startswith("refs/tags/") else None)


def _name_uncommitted(url: str) -> None:
    path = Path(url.removeprefix("file://"))
    if not path.is_absolute() or not path.is_dir():
        return
    if (path / ".git").exists():
        check_special_files(path)
    # A bare repository has no work tree.
    with Git.session() as git, contextlib.suppress(SourceError):
        git.name_uncommitted(path)


def _normalise(folder: Path, moment: int) -> None:
    """Set modes and times from the commit: those from git depend on the umask and the clock, a build must not."""
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            os.utime(path, (moment, moment), follow_symlinks=False)
    folder.chmod(0o755)
    os.utime(folder, (moment, moment))
