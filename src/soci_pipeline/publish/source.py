"""The source of a build: a ref is resolved to one commit once, and every branch fetches exactly that commit.

Git runs without asking questions and without hooks; addresses and refs that could be read as options, or that name a
transport which runs commands, are refused. Credentials go to git through a helper script that reads files of mode
0600: they are in no argument, no environment and no URL. For CodeCommit they are made of the role of this machine, or
of a session that is handed in. Submodules are not fetched.
"""

import contextlib
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, field_validator

from soci_pipeline import process
from soci_pipeline.aws.codecommit import CodeCommitSource
from soci_pipeline.errors import InvalidInput, SourceError, ToolFailed
from soci_pipeline.process import logger

if TYPE_CHECKING:
    import boto3

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_ABBREVIATED = re.compile(r"[0-9a-f]{7,39}\Z")
_SCP = re.compile(r"(?:[A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?![0-9]*/)[\w~][^\s:]*\Z")
_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
# What `git check-ref-format` forbids, and a leading dash.
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/.]|[/.]$|\.lock$|/\.|\.lock/|^@$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ADVICE = "Give an https, ssh or git address, or the absolute path of a git work tree; credentials belong in a block."
_NETWORK_SECONDS = 900.0


class SourceRefused(SourceError):
    """The git server does not take the credentials."""


class ResolvedSource(BaseModel):
    """One commit of one repository. ``commit_time`` is Unix seconds; ``version`` comes from a tag on the commit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    ref: str
    """As asked for and found: ``refs/heads/main``, ``refs/tags/v1.2``, or the commit itself."""
    commit: str
    commit_time: int
    version: str | None = None

    @field_validator("commit")
    @classmethod
    def _commit_is_a_whole_one(cls, commit: str) -> str:
        if not _COMMIT.match(commit):
            raise ValueError(f"not a commit id: {commit[:100]!r}")
        return commit

    @field_validator("url")
    @classmethod
    def _url_is_safe_for_git(cls, url: str) -> str:
        try:
            return check_url(url)
        except InvalidInput as error:
            raise ValueError(error.reason) from error


@dataclass(frozen=True, slots=True)
class GitCredentials:
    """A user and a password or token for http(s), a private key for ssh, or an AWS session for CodeCommit."""

    username: str = "git"
    password: SecretStr | None = None
    ssh_key: SecretStr | None = None
    aws: "boto3.Session | None" = None


def check_url(url: str) -> str:
    """The address itself; raises `InvalidInput` where git would take it for an option or run a command of it."""
    text = url.strip()
    if not text or _CONTROL.search(text) or text.startswith("-") or len(text) > 2000:
        raise InvalidInput(f"not a git address: {text[:200]!r}", advice=_ADVICE)
    if CodeCommitSource.parse(text) is not None:
        return text
    if "::" in text.partition("://")[0].partition("/")[0]:
        raise InvalidInput(f"git's remote helpers are not allowed: {text[:200]!r}", advice=_ADVICE)
    if text.startswith("/"):
        return text
    if "://" in text:
        return _check_scheme(text)
    if _SCP.match(text):
        return text
    raise InvalidInput(f"not a git address: {text[:200]!r}", advice=_ADVICE)


def _check_scheme(text: str) -> str:
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")[2]
        user = parts.username or ""
        password = parts.password
    except ValueError:
        raise InvalidInput("not a git address", advice=_ADVICE) from None
    if parts.scheme not in ("https", "http", "ssh", "git", "file"):
        raise InvalidInput(f"git over {parts.scheme[:30]!r} is not allowed", advice=_ADVICE)
    # The address is not repeated: it holds a secret.
    if password is not None or (user and parts.scheme in ("https", "http", "git")):
        raise InvalidInput(f"the git address of {host} holds credentials", advice=_ADVICE)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise InvalidInput(f"not a git address: {text[:200]!r}", advice=_ADVICE)
        return text
    if not _HOST.match(host) or user.startswith("-") or parts.path in ("", "/") or parts.path.startswith("/-"):
        raise InvalidInput(f"not a git address: {text[:200]!r}", advice=_ADVICE)
    return text


def check_ref(ref: str) -> str:
    """The ref itself; raises `InvalidInput` for what can be no branch, tag or commit."""
    text = ref.strip()
    if not text or len(text) > 255 or _BAD_REF.search(text):
        raise InvalidInput(f"not a branch, tag or commit: {ref[:200]!r}", advice="Give its name, without options.")
    return text


def resolve(
    url: str, ref: str | None = None, *, files: Sequence[str] = (), credentials: GitCredentials | None = None
) -> ResolvedSource:
    """Find the one commit that ``ref`` (the default branch where None) means now, and when it was made.

    ``files`` must be in it; none of their contents are fetched for that. Raises `SourceError` where repository, ref or
    a file do not exist, credentials are refused, or a name is both branch and tag of different commits; ``temporary``
    where the host did not answer.
    """
    given = check_url(url)
    _name_uncommitted(given)
    with _remote(given, credentials) as (git, address):
        remote = git.remote_refs(address)
        found, commit = _choose(remote, check_ref(ref) if ref else None, given)
        with tempfile.TemporaryDirectory(prefix="soci-resolve-") as folder:
            if commit is None:
                found = commit = git.expand(Path(folder), address, found)
            git.fetch(Path(folder), address, commit, blobs=False)
            git.check_files(Path(folder), address, commit, files)
            time = int(git.run("-C", folder, "show", "-s", "--format=%ct", commit).strip())
    return ResolvedSource(
        url=given, ref=found, commit=commit, commit_time=time, version=_version(remote, found, commit)
    )


def check_out(source: ResolvedSource, folder: Path, *, credentials: GitCredentials | None = None) -> Path:
    """Put the files of the commit into ``folder`` (which is made, and must not exist), without git's own data.

    Modes and times depend on the commit alone, so that a build that copies everything repeats. Raises as `resolve`.
    """
    with _remote(source.url, credentials) as (git, address):
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        with tempfile.TemporaryDirectory(prefix=".git-", dir=folder.parent) as data:
            git.fetch(Path(data), address, source.commit, blobs=True)
            git.run(
                "--git-dir", data, "--work-tree", str(partial), "checkout", "--quiet", "--force", source.commit, "--"
            )
    if (partial / ".gitmodules").exists():
        logger().warning("the source has submodules; they are not fetched")
    _normalise(partial, source.commit_time)
    partial.rename(folder)
    return folder


def is_ancestor(url: str, older: str, newer: str, *, credentials: GitCredentials | None = None) -> bool | None:
    """Whether one commit is an ancestor of another; None where the repository does not know them both any more."""
    if not (_COMMIT.match(older) and _COMMIT.match(newer)):
        return None
    with (
        _remote(check_url(url), credentials) as (git, address),
        tempfile.TemporaryDirectory(prefix="soci-history-") as folder,
    ):
        git.history(Path(folder), address)
        for commit in (older, newer):
            if not git.succeeds("-C", folder, "cat-file", "-e", f"{commit}^{{commit}}"):
                return None
        return git.succeeds("-C", folder, "merge-base", "--is-ancestor", older, newer)


@contextlib.contextmanager
def _remote(url: str, credentials: GitCredentials | None) -> Iterator[tuple["_Git", str]]:
    """A git that can sign in to a remote, and the address by which git finds it."""
    place = CodeCommitSource.parse(url)
    if place is None or not (credentials is None or credentials.aws is not None):
        with _Git.session(credentials) as git:
            yield git, url if place is None else place.url
        return
    user, password = place.sign_in(credentials.aws if credentials is not None else None)
    try:
        with _Git.session(GitCredentials(username=user, password=password)) as git:
            yield git, place.url
    except SourceRefused as error:
        advice = "Add codecommit:GitPull on the repository to the policy of the role."
        raise SourceRefused(error.reason, advice=advice) from error


class _Git:
    """The git program with an environment that asks nothing and runs nothing."""

    # `safe.directory`: a work tree given by path may belong to another user than the worker's.
    _OPTIONS = (
        *("-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "core.fsmonitor=false"),
        *("-c", "submodule.recurse=false", "-c", "advice.detachedHead=false", "-c", "gc.auto=0"),
        *("-c", "core.autocrlf=false", "-c", "safe.directory=*"),
    )

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    @classmethod
    @contextlib.contextmanager
    def session(cls, credentials: GitCredentials | None) -> Iterator["_Git"]:
        """A git whose credentials are files that vanish with the block."""
        # GIT_DIR and its like would point git at another repository, for instance inside a hook.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= {
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "SSH_ASKPASS": "",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
            "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
            "LC_ALL": "C",
        }
        with tempfile.TemporaryDirectory(prefix="soci-git-") as folder:
            yield cls(environment | _credential_files(Path(folder), credentials))

    def run(self, *arguments: str) -> str:
        """Standard output of git; raises `SourceError`."""
        try:
            return process.run(
                ["git", *self._OPTIONS, *arguments], package="git", env=self._environment, timeout=_NETWORK_SECONDS
            ).stdout
        except ToolFailed as error:
            raise _understood(error) from error

    def succeeds(self, *arguments: str) -> bool:
        """Whether git ends with success."""
        try:
            self.run(*arguments)
        except SourceError:
            return False
        return True

    def remote_refs(self, url: str) -> dict[str, str]:
        """Refs of the remote: name -> object; ``HEAD`` names a ref (``ref: …``) as well."""
        refs: dict[str, str] = {}
        for line in self.run("ls-remote", "--symref", "--", url).splitlines():
            value, _, name = line.partition("\t")
            if value.startswith("ref: "):
                refs["ref: HEAD"] = value.removeprefix("ref: ")
            elif name:
                refs[name] = value
        return refs

    def fetch(self, folder: Path, url: str, commit: str, *, blobs: bool) -> None:
        """Fetch one commit without history; everything, where the server gives no single commits."""
        if not (folder / "HEAD").exists():
            self.run("init", "--quiet", "--bare", str(folder))
        narrow = () if blobs else ("--filter=blob:none",)
        base = ("-C", str(folder), "fetch", "--quiet", "--no-tags", "--no-recurse-submodules")
        try:
            self.run(*base, "--depth=1", *narrow, "--", url, commit)
        except SourceError as error:
            if error.temporary:
                raise
            logger().debug("the server gives no single commit; fetching all branches and tags")
            self.run(*base, "--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            if not self.succeeds("-C", str(folder), "cat-file", "-e", f"{commit}^{{commit}}"):
                raise _no_ref(commit, url) from error

    def check_files(self, folder: Path, url: str, commit: str, paths: Sequence[str]) -> None:
        """Raise `SourceError` for the first path that the fetched commit does not have."""
        for path in paths:
            if path != "." and not self.run("-C", str(folder), "ls-tree", "--name-only", commit, "--", path).strip():
                raise SourceError(
                    f"commit {commit[:12]} of {url} has no {path}",
                    advice="Check the parameters `context` and `dockerfile`; paths start at the top of the repository.",
                )

    def history(self, folder: Path, url: str) -> None:
        """Fetch the commits of all branches and tags, without their files where the server can."""
        self.run("init", "--quiet", "--bare", str(folder))
        base = ("-C", str(folder), "fetch", "--quiet", "--no-recurse-submodules")
        self.run(*base, "--filter=tree:0", "--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")

    def expand(self, folder: Path, url: str, short: str) -> str:
        """The whole id of an abbreviated commit."""
        with tempfile.TemporaryDirectory(prefix="history-", dir=folder) as history:
            self.history(Path(history), url)
            try:
                return self.run("-C", history, "rev-parse", "--verify", "--quiet", f"{short}^{{commit}}").strip()
            except SourceError as error:
                raise _no_ref(short, url) from error


def _choose(refs: Mapping[str, str], ref: str | None, url: str) -> tuple[str, str | None]:
    """The full name of the ref, and its commit; None as commit for an abbreviated one."""
    if ref is None:
        if "HEAD" not in refs:
            raise SourceError(f"{url} has no default branch", advice="Give the branch, tag or commit as `ref`.")
        return refs.get("ref: HEAD", refs["HEAD"]), refs["HEAD"]
    names = [ref] if ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
    # An annotated tag is an object of its own; its commit is listed under the name with ^{}.
    found = {name: refs.get(f"{name}^{{}}", refs[name]) for name in names if name in refs}
    if len(set(found.values())) > 1:
        advice = f"Write {names[0]} or {names[1]}."
        raise SourceError(f"{ref} is a branch and a tag of {url}, of different commits", advice=advice)
    if found:
        return next(iter(found.items()))
    if _COMMIT.match(ref):
        return ref, ref
    if _ABBREVIATED.match(ref):
        return ref, None
    raise _no_ref(ref, url)


def _no_ref(ref: str, url: str) -> SourceError:
    return SourceError(f"{url} has no branch, tag or commit {ref}", advice="Push it first, or correct `ref`.")


def _version(refs: Mapping[str, str], found: str, commit: str) -> str | None:
    """The version that a tag on the commit names; the tag that was asked for comes first."""
    tags = [
        name.removesuffix("^{}") for name, value in refs.items() if value == commit and name.startswith("refs/tags/")
    ]
    names = [found] if found.startswith("refs/tags/") else tags
    versions = [re.sub(r"^v(?=[0-9])", "", name.removeprefix("refs/tags/")) for name in names]
    numbered = [version for version in versions if re.match(r"[0-9]+(\.[0-9]+)*", version)]

    def order(version: str) -> tuple[tuple[int, ...], bool, str]:
        number = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
        digits = number.group() if number else "0"
        # A release stands above its own candidates.
        return tuple(int(part) for part in digits.split(".")), version == digits, version

    return max(numbered, key=order, default=versions[0] if found.startswith("refs/tags/") else None)


def _credential_files(folder: Path, credentials: GitCredentials | None) -> dict[str, str]:
    if credentials is None:
        return {}
    changes: dict[str, str] = {}
    if credentials.password is not None:
        _write(folder / "username", credentials.username)
        _write(folder / "password", credentials.password.get_secret_value())
        place = shlex.quote(str(folder))
        script = f'#!/bin/sh\ncase "$1" in\n[Uu]sername*) cat {place}/username ;;\n*) cat {place}/password ;;\nesac\n'
        _write(folder / "askpass", script, mode=0o700)
        changes["GIT_ASKPASS"] = str(folder / "askpass")
    if credentials.ssh_key is not None:
        _write(folder / "key", credentials.ssh_key.get_secret_value().rstrip("\n") + "\n")
        key = shlex.quote(str(folder / "key"))
        changes["GIT_SSH_COMMAND"] = f"ssh -o BatchMode=yes -o IdentitiesOnly=yes -i {key}"
    return changes


def _write(path: Path, text: str, *, mode: int = 0o600) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w") as file:
        file.write(text)


def _understood(error: ToolFailed) -> SourceError:
    said = error.reason.lower()
    if any(mark in said for mark in ("authentication failed", "could not read username", "permission denied", "403")):
        advice = "Name a block with credentials in `source_credentials`, or give the worker's user access."
        return SourceRefused(f"the git server refused the credentials\n{error.reason}", advice=advice)
    if any(
        mark in said
        for mark in ("could not resolve", "connection refused", "timed out", "connection reset", "502", "503")
    ):
        advice = "Check the address and the network of the worker."
        return SourceError(f"the git server does not answer\n{error.reason}", advice=advice, temporary=True)
    if any(mark in said for mark in ("not found", "does not exist", "not appear to be a git repository")):
        return SourceError(f"there is no such git repository\n{error.reason}", advice="Check the address in `source`.")
    return SourceError(error.reason)


def _name_uncommitted(url: str) -> None:
    path = Path(url.removeprefix("file://"))
    if not path.is_absolute() or not path.is_dir():
        return
    with _Git.session(None) as git:
        try:
            changed = git.run("-C", str(path), "status", "--porcelain").splitlines()
        except SourceError:
            # A bare repository has no work tree.
            return
    if changed:
        names = ", ".join(line[3:] for line in changed[:10])
        more = f" and {len(changed) - 10} more" if len(changed) > 10 else ""
        logger().warning("uncommitted changes are not published: %s%s", names, more)


def _normalise(folder: Path, moment: int) -> None:
    """Git writes modes by the umask and times by the clock; a build context must have neither."""
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            os.utime(path, (moment, moment), follow_symlinks=False)
    folder.chmod(0o755)
    os.utime(folder, (moment, moment))
