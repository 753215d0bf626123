"""The git program, made safe: it asks nothing, runs no hooks and no transport that is a command.

Credentials go to git through a helper script that reads files of mode 0600: they are in no argument, no environment
and no URL. For CodeCommit they are made of the role of this machine, or of a session that is handed in.

Credentials are bound to the scheme, host and port of the source. The helper script compares the prompt, in which git
names the server that requires the login, and answers no other server: not after a redirect, and not a proxy. Of
redirects only those of the first request are followed, and alternates never. A source on https is never fetched over
http. The machine's credential helpers neither replace nor store a login of a source. git's dumb HTTP protocol is
rejected: there a partial clone starts one git process per object, each of which does the same.
"""

import contextlib
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import SecretStr

from soci_pipeline import process
from soci_pipeline.aws.codecommit import CodeCommitSource
from soci_pipeline.errors import TEMPORARY_STATUSES, SourceError, ToolFailed
from soci_pipeline.process import TooManyProcesses, logger
from soci_pipeline.publish.git_address import DEFAULT_PORTS, Origin, origin_of

if TYPE_CHECKING:
    import boto3

_NETWORK_SECONDS = 900.0
_NAMED = 10
# A fetch takes about six: git, its transport, and what writes and checks the pack.
_MAX_PROCESSES = 32
# What git repeats of a server's answer, and curl of a proxy's. A number alone may be part of an address or a commit.
_HTTP_STATUS = re.compile(
    r"(?:returned error:|rpc failed; http|received http code|tunnel failed, response) ([0-9]{3})\b"
)
_UNANSWERED_PROMPT = re.compile(r"could not read (?:username|password) for '([^']+)'")
_TRANSPORTS = ("file", "git", "http", "https", "ssh")
# An agent, a forwarded one too, and a shared connection would let others use the key.
_SSH_WITH_KEY = (
    "ssh -o BatchMode=yes -o IdentitiesOnly=yes -o AddKeysToAgent=no -o ForwardAgent=no"
    " -o ControlMaster=no -o ControlPath=none"
)
_DUMB_ADVICE = "Serve the repository with git's smart protocol (a forge or `git http-backend`), or use an ssh URL."
_REFUSALS = ("authentication failed", "could not read username", "permission denied")
_SILENCE = ("could not resolve", "failed to connect", "connection refused", "timed out", "connection reset")


class SourceRefused(SourceError):
    """The git server does not take the credentials."""


class UnsupportedServer(SourceError):
    """A plain web server: it has the files of the repository, and does not speak git's smart HTTP protocol."""

    default_advice = _DUMB_ADVICE


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
        found = url if place is None else place.url
        with Git.session(found, credentials) as git:
            yield git, found
        return
    user, password = place.sign_in(credentials.aws if credentials is not None else None)
    try:
        with Git.session(place.url, GitCredentials(username=user, password=password)) as git:
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

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        options: Sequence[str] = (),
        bound_to: Origin | None = None,
        remote: str = "",
    ) -> None:
        self.environment = environment
        self._options = (*self._OPTIONS, *options)
        self._bound_to = bound_to
        self._remote = remote

    @classmethod
    @contextlib.contextmanager
    def session(cls, url: str | None = None, credentials: GitCredentials | None = None) -> Iterator["Git"]:
        """A git for one remote, or for this machine alone; its credentials are files that vanish with the block."""
        environment = plain_environment(os.environ) | {
            "GIT_ASKPASS": "",
            "SSH_ASKPASS": "",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
            "GIT_ALLOW_PROTOCOL": "none",
        }
        if url is None:
            yield cls(environment)
            return
        used = cls(environment)._rewritten(url)
        environment["GIT_ALLOW_PROTOCOL"] = _allowed_protocols(used)
        # From 2.39.4 on, git then fetches no single objects of a partial clone; older releases ignore it.
        environment["GIT_NO_LAZY_FETCH"] = "1"
        with tempfile.TemporaryDirectory(prefix="soci-git-") as folder:
            access = _Access.of(Path(folder), used, credentials)
            yield cls(environment | access.environment, options=access.options, bound_to=access.bound_to, remote=used)

    def _rewritten(self, url: str) -> str:
        """The URL that git really uses: the machine's own configuration may change it (`url.<base>.insteadOf`)."""
        try:
            return self.run("ls-remote", "--get-url", "--", url).strip()
        except SourceError:
            # The next command fails for the same reason, and says so. Until then the URL as given binds the login.
            return url

    def run(self, *arguments: str, extra: Mapping[str, str] | None = None) -> str:
        """Standard output of git, with more variables if any; raises `SourceError`."""
        argv, environment = ["git", *self._options, *arguments], {**self.environment, **(extra or {})}
        try:
            return process.run(
                argv, package="git", env=environment, timeout=_NETWORK_SECONDS, max_processes=_MAX_PROCESSES
            ).stdout
        except ToolFailed as error:
            raise _understood(error, self._bound_to) from error

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
        for line in self._list_remote(url).splitlines():
            value, _, name = line.partition("\t")
            if value.startswith("ref: "):
                # A clone has a HEAD of its own for each remote as well.
                refs |= {"ref: HEAD": value.removeprefix("ref: ")} if name == "HEAD" else {}
            elif name:
                refs[name] = value
        return refs

    def _list_remote(self, url: str, *patterns: str) -> str:
        """The output of `git ls-remote`; raises `UnsupportedServer` for dumb HTTP."""
        with tempfile.TemporaryDirectory(prefix="soci-git-") as folder:
            packets = Path(folder) / "packets"
            listing = self.run(
                *("ls-remote", "--symref", "--", url, *patterns), extra={"GIT_TRACE_PACKET": str(packets)}
            )
            # The smart protocol is made of packets; dumb HTTP has none, so git traces none.
            if self._remote.startswith(("http://", "https://")) and not packets.exists():
                raise UnsupportedServer(f"{url} is a plain web server: git's dumb HTTP protocol is not supported")
        return listing

    def fetch(self, folder: Path, url: str, commit: str, *, blobs: bool) -> None:
        """Fetch one commit without history; everything, where the server gives no single commits."""
        if not (folder / "HEAD").exists():
            self.run("init", "--quiet", "--bare", str(folder))
        narrow = () if blobs else ("--filter=blob:none",)
        base = ("-C", str(folder), "fetch", "--quiet", "--no-tags", "--no-recurse-submodules")
        try:
            self.run(*base, "--depth=1", *narrow, "--", url, commit)
        except SourceError as error:
            if error.temporary or isinstance(error, SourceRefused | UnsupportedServer):
                raise
            logger().debug("the server gives no single commit; fetching all branches and tags")
            # In the same repository the failed fetch has left a promisor remote, from which git fetches one by one.
            shutil.rmtree(folder)
            self.run("init", "--quiet", "--bare", str(folder))
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
        self._list_remote(url, "HEAD")
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


def _allowed_protocols(url: str) -> str:
    """What git may fetch this URL over, redirects included: its own transport, and https for http."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        return "file" if url.startswith("/") else "ssh"
    if scheme not in _TRANSPORTS:
        return "none"
    return "http:https" if scheme == "http" else scheme


@dataclass(frozen=True, slots=True)
class _Access:
    """How git signs in to one remote."""

    environment: dict[str, str]
    options: tuple[str, ...] = ()
    bound_to: Origin | None = None

    @classmethod
    def of(cls, folder: Path, url: str, credentials: GitCredentials | None) -> "_Access":
        """Only what the transport of this URL uses is written into the folder."""
        origin = origin_of(url)
        if credentials is None or origin is None:
            return cls({})
        if origin.scheme in ("http", "https") and credentials.password is not None:
            return cls(*_password_access(folder, url, credentials.username, credentials.password), origin)
        if origin.scheme == "ssh" and credentials.ssh_key is not None:
            _write(folder / "key", credentials.ssh_key.get_secret_value().rstrip("\n") + "\n")
            return cls({"GIT_SSH_COMMAND": f"{_SSH_WITH_KEY} -i {shlex.quote(str(folder / 'key'))}"}, (), origin)
        return cls({})


def _password_access(
    folder: Path, url: str, username: str, password: SecretStr
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The environment and the options with which git signs in to the server of this URL, and to no other."""
    scheme, _, rest = url.partition("://")
    user_in_url, _, host = rest.partition("/")[0].rpartition("@")
    _write(folder / "username", username)
    _write(folder / "password", password.get_secret_value())
    _write(folder / "askpass", _askpass(folder, scheme, host, {username, user_in_url} - {""}), mode=0o700)
    options = (
        # The machine's own helpers would store the login. With paths in the prompts, the script would not know them.
        *("-c", "credential.helper=", "-c", "credential.useHttpPath=false"),
        *("-c", f"credential.{scheme}://{host}.useHttpPath=false"),
    )
    return {"GIT_ASKPASS": str(folder / "askpass")} | _only_first_redirects(url), options


def _only_first_redirects(url: str) -> dict[str, str]:
    """The environment in which git follows redirects of its first request only, whatever the machine's configuration.

    With `http.followRedirects=true`, git's dumb HTTP protocol also fetches from other servers that the first one lists
    as alternates, and sends them the login without a prompt. A whole URL is more specific than any other section.
    """
    keys = ("http.followRedirects", f"http.{url}.followRedirects")
    pairs = [pair for n, key in enumerate(keys) for pair in ((f"KEY_{n}", key), (f"VALUE_{n}", "initial"))]
    return {f"GIT_CONFIG_{name}": value for name, value in [("COUNT", str(len(keys))), *pairs]}


def _askpass(folder: Path, scheme: str, host: str, usernames: Collection[str]) -> str:
    """A script that answers git's prompts for one server, compared as a whole, and fails for all others.

    Source: git's credential.c. Its newer releases encode the user and the host in a prompt.
    """
    places = [f"{scheme}://{each}" for each in _spellings(scheme, host)]
    users = sorted({each for name in usernames for each in (name, quote(name, safe=""))})
    named = [f"{scheme}://{user}@{each}" for user in users for each in _spellings(scheme, host)]
    return "\n".join(
        (
            "#!/bin/sh",
            'case "$1" in',
            f"{_prompts('Username', places)}) exec cat {shlex.quote(str(folder / 'username'))} ;;",
            f"{_prompts('Password', named)}) exec cat {shlex.quote(str(folder / 'password'))} ;;",
            "esac",
            "exit 1\n",
        )
    )


def _prompts(what: str, places: Iterable[str]) -> str:
    return " | ".join(shlex.quote(f"{what} for '{place}': ") for place in places)


def _spellings(scheme: str, host: str) -> list[str]:
    """How a prompt may write one host and port."""
    default = f":{DEFAULT_PORTS[scheme]}"
    bare = host.removesuffix(default)
    has_port = bare.rpartition("]")[2].find(":") >= 0
    written = [bare] if has_port else [bare, f"{bare}{default}"]
    lower = [each.lower() for each in written]
    return sorted({spelled for each in (*written, *lower) for spelled in (each, each.replace("_", "%5F"))})


def _write(path: Path, text: str, *, mode: int = 0o600) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w") as file:
        file.write(text)


def _understood(error: ToolFailed, bound_to: Origin | None) -> SourceError:
    if isinstance(error, TooManyProcesses):
        return UnsupportedServer(error.reason)
    said = error.reason.lower()
    status = int(found[1]) if (found := _HTTP_STATUS.search(said)) else None
    if "dumb http transport" in said:
        return UnsupportedServer(f"git's dumb HTTP protocol is not supported\n{error.reason}")
    if "not supported or disabled in libcurl" in said:
        advice = "Set `source` to the URL that the server redirects to, if you trust that server."
        return SourceError(f"the git server redirects to a protocol that is not allowed\n{error.reason}", advice=advice)
    other = _other_server(said, bound_to)
    if other is not None:
        advice = "Set `source` to the URL of the server that requires the login, if you trust that server."
        return SourceError(
            f"{other} requires a login, but the credentials are only for {bound_to}\n{error.reason}", advice=advice
        )
    if status == HTTPStatus.FORBIDDEN or any(mark in said for mark in _REFUSALS):
        advice = "Name a block with credentials in `source_credentials`, or give the worker's user access."
        return SourceRefused(f"the git server refused the credentials\n{error.reason}", advice=advice)
    if status in TEMPORARY_STATUSES or any(mark in said for mark in _SILENCE):
        advice = "Check the address and the network of the worker."
        return SourceError(f"the git server does not answer\n{error.reason}", advice=advice, temporary=True)
    if any(mark in said for mark in ("not found", "does not exist", "not appear to be a git repository")):
        return SourceError(f"there is no such git repository\n{error.reason}", advice="Check the address in `source`.")
    return SourceError(error.reason, advice="Try `git ls-remote` with the address in `source` on that machine.")


def _other_server(said: str, bound_to: Origin | None) -> str | None:
    """The server whose login git could not read, where the credentials are for another one."""
    prompt = _UNANSWERED_PROMPT.search(said)
    if prompt is None or bound_to is None:
        return None
    scheme, _, rest = prompt[1].partition("://")
    host = rest.rpartition("@")[2]
    spellings = (each.lower() for each in _spellings(bound_to.scheme, f"{bound_to.host}:{bound_to.port}"))
    return None if scheme == bound_to.scheme and host in spellings else f"{scheme}://{host}"
