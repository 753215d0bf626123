"""The git program, made safe: it asks nothing, runs no hooks and no transport that is a command.

Credentials go to git through a helper script that reads files of mode 0600: they are in no argument, no environment
and no URL. For CodeCommit they are made of the role of this machine, or of a session that is handed in.
"""

import contextlib
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from soci_pipeline import process
from soci_pipeline.aws.codecommit import CodeCommitSource
from soci_pipeline.errors import TEMPORARY_STATUSES, SourceError, ToolFailed
from soci_pipeline.process import logger

if TYPE_CHECKING:
    import boto3

_NETWORK_SECONDS = 900.0
_NAMED = 10
# What git repeats of a server's answer, and curl of a proxy's. A number alone may be part of an address or a commit.
_HTTP_STATUS = re.compile(
    r"(?:returned error:|rpc failed; http|received http code|tunnel failed, response) ([0-9]{3})\b"
)
_REFUSALS = ("authentication failed", "could not read username", "permission denied")
_SILENCE = ("could not resolve", "failed to connect", "connection refused", "timed out", "connection reset")


class SourceRefused(SourceError):
    """The git server does not take the credentials."""


@dataclass(frozen=True, slots=True)
class GitCredentials:
    """A user and a password or token for http(s), a private key for ssh, or an AWS session for CodeCommit."""

    username: str = "git"
    password: SecretStr | None = None
    ssh_key: SecretStr | None = None
    aws: "boto3.Session | None" = None


def plain_environment(given: Mapping[str, str]) -> dict[str, str]:
    """An environment in which git asks nothing, answers in English, and finds the repository that it is told."""
    # GIT_DIR and its like would point git at another repository, for instance inside a hook.
    plain = {name: value for name, value in given.items() if not name.startswith("GIT_")}
    return plain | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


@contextlib.contextmanager
def remote(url: str, credentials: GitCredentials | None) -> Iterator[tuple["Git", str]]:
    """A git that can sign in to a remote, and the address by which git finds it."""
    place = CodeCommitSource.parse(url)
    if place is None or not (credentials is None or credentials.aws is not None):
        with Git.session(credentials) as git:
            yield git, url if place is None else place.url
        return
    user, password = place.sign_in(credentials.aws if credentials is not None else None)
    try:
        with Git.session(GitCredentials(username=user, password=password)) as git:
            yield git, place.url
    except SourceRefused as error:
        advice = "Add codecommit:GitPull on the repository to the policy of the role."
        raise SourceRefused(error.reason, advice=advice) from error


class Git:
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
    def session(cls, credentials: GitCredentials | None) -> Iterator["Git"]:
        """A git whose credentials are files that vanish with the block."""
        environment = plain_environment(os.environ) | {
            "GIT_ASKPASS": "",
            "SSH_ASKPASS": "",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
            "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
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

    def name_uncommitted(self, work_tree: Path, below: str = ".") -> None:
        """Warn of what differs from the current commit below a path of a work tree; raises `SourceError` for none."""
        lines = self.run("-C", str(work_tree), "status", "--porcelain", "--", below).splitlines()
        if lines:
            names = ", ".join(line[3:] for line in lines[:_NAMED])
            more = f" and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
            logger().warning("uncommitted changes are not published: %s%s", names, more)

    def remote_refs(self, url: str) -> dict[str, str]:
        """Refs of the remote: name -> object; ``HEAD`` names a ref (``ref: …``) as well."""
        refs: dict[str, str] = {}
        for line in self.run("ls-remote", "--symref", "--", url).splitlines():
            value, _, name = line.partition("\t")
            if value.startswith("ref: "):
                # A clone has a HEAD of its own for each remote as well.
                refs |= {"ref: HEAD": value.removeprefix("ref: ")} if name == "HEAD" else {}
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
                raise no_such_ref(commit, url) from error

    def check_files(self, folder: Path, url: str, commit: str, paths: Sequence[str]) -> None:
        """Raise `SourceError` for the first path that the fetched commit does not have."""
        for path in paths:
            if path != "." and not self.run("-C", str(folder), "ls-tree", "--name-only", commit, "--", path).strip():
                advice = "Check `context`, which starts at the top of the repository, and `dockerfile`, at the context."
                raise SourceError(f"commit {commit[:12]} of {url} has no {path}", advice=advice)

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
                raise no_such_ref(short, url) from error


def no_such_ref(ref: str, url: str) -> SourceError:
    """What a ref is answered with that the repository does not have."""
    return SourceError(f"{url} has no branch, tag or commit {ref}", advice="Push it first, or correct `ref`.")


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
    status = int(found[1]) if (found := _HTTP_STATUS.search(said)) else None
    if status == HTTPStatus.FORBIDDEN or any(mark in said for mark in _REFUSALS):
        advice = "Name a block with credentials in `source_credentials`, or give the worker's user access."
        return SourceRefused(f"the git server refused the credentials\n{error.reason}", advice=advice)
    if status in TEMPORARY_STATUSES or any(mark in said for mark in _SILENCE):
        advice = "Check the address and the network of the worker."
        return SourceError(f"the git server does not answer\n{error.reason}", advice=advice, temporary=True)
    if any(mark in said for mark in ("not found", "does not exist", "not appear to be a git repository")):
        return SourceError(f"there is no such git repository\n{error.reason}", advice="Check the address in `source`.")
    return SourceError(error.reason, advice="Try `git ls-remote` with the address in `source` on that machine.")
