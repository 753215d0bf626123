"""The git program, made safe: it asks nothing, runs no hooks and no transport that is a command.

Credentials go to git through a helper script that reads files of mode 0600: they are in no argument, no environment
and no URL. For CodeCommit they are made of the role of this machine, or of a session that is handed in.

Credentials are bound to the scheme, host and port of the source. The helper script compares the prompt, in which git
names the server that requires the login, and answers no other server: not after a redirect, and not a proxy. Of
redirects only those of the first request are followed, and alternates never. A source on https is never fetched over
http. The machine's credential helpers neither replace nor store a login of a source. git's dumb HTTP protocol is
rejected: there a partial clone starts one git process per object, each of which does the same.

The configuration of the worker's user decides how a server is reached (proxies, certificates, `insteadOf`), and nothing
else. What only reads or writes the disk runs without it.
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

from soci_pipeline.aws.codecommit import CodeCommitSource
from soci_pipeline.errors import TEMPORARY_STATUSES, SourceError, ToolFailed
from soci_pipeline.log import logger
from soci_pipeline.machine import programs
from soci_pipeline.machine.programs import TooManyProcesses
from soci_pipeline.publish.git_address import DEFAULT_PORTS, Origin, origin_of
from soci_pipeline.publish.git_config import ANY_OWNER, ISOLATED, OPTIONS, filters, init_options, quoted

if TYPE_CHECKING:
    import boto3

_NETWORK_SECONDS = 900.0
_NAMED = 10
_LONGEST_PATH = 4096
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

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        options: Sequence[str] = (),
        helper: Sequence[str] = (),
        bound_to: Origin | None = None,
        remote: str = "",
    ) -> None:
        self.environment = environment
        self._options = (*OPTIONS, *options)
        self._helper = tuple(helper)
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
            # `ssh.variant` of the user's configuration is about another program.
            "GIT_SSH_VARIANT": "ssh",
            "GIT_ALLOW_PROTOCOL": "none",
        }
        if url is None:
            yield cls(environment)
            return
        # From 2.39.4 on, git then fetches no single objects of a partial clone; older releases ignore it.
        environment["GIT_NO_LAZY_FETCH"] = "1"
        used = cls(environment)._used(url, credentials)
        environment["GIT_ALLOW_PROTOCOL"] = _allowed_protocols(used)
        with tempfile.TemporaryDirectory(prefix="soci-git-") as folder:
            access = _Access.of(Path(folder), used, credentials)
            # The longest match counts, so a URL that is rewritten to itself is not rewritten.
            kept = f'[url "{quoted(url)}"]\n\tinsteadOf = "{quoted(url)}"\n' if used == url else ""
            _write(Path(folder) / "config", kept + access.configuration)
            _write(Path(folder) / "any-owner", ANY_OWNER)
            options = ("-c", f"include.path={folder}/config", *access.options)
            if is_on_this_machine(used):
                environment |= {**ISOLATED, "GIT_CONFIG_GLOBAL": f"{folder}/any-owner"}
            yield cls(
                environment | access.environment,
                options=options,
                helper=access.helper,
                bound_to=access.bound_to,
                remote=used,
            )

    def _used(self, url: str, credentials: GitCredentials | None) -> str:
        """The URL that git really uses for this one: the user's configuration may change it (`url.<base>.insteadOf`).

        With a login, a rewriting to another transport or to a URL with a password of its own does not count.
        """
        rewritten = self._rewritten(url)
        return rewritten if credentials is None or _takes(rewritten, credentials) else url

    def _rewritten(self, url: str) -> str:
        """What git makes of a URL."""
        try:
            return self.run("ls-remote", "--get-url", "--", url).strip()
        except SourceError:
            # The next command fails for the same reason, and says so. Until then the URL as given binds the login.
            return url

    def run(self, *arguments: str, extra: Mapping[str, str] | None = None, timeout: float = _NETWORK_SECONDS) -> str:
        """Standard output of git, with more variables if any; raises `SourceError`. Paths must be absolute."""
        argv, environment = ["git", *self._options, *arguments], {**self.environment, **(extra or {})}
        try:
            return programs.run(
                argv,
                package="git",
                env=environment,
                # The folder that this process is in may be a repository with a configuration of its own.
                cwd=Path("/"),
                timeout=timeout,
                max_processes=_MAX_PROCESSES,
            ).stdout
        except ToolFailed as error:
            raise _understood(error, self._bound_to) from error

    def run_here(self, *arguments: str) -> str:
        """Standard output of a command that talks to no server: the user's configuration does not count."""
        return self.run(*arguments, extra=ISOLATED)

    def run_lfs(self, *arguments: str, timeout: float) -> None:
        """Run git-lfs, which gets the login from a credential helper: its questions to an askpass program differ."""
        argv = (*self._helper, *arguments)
        self.run(*argv, extra={"GIT_ASKPASS": ""}, timeout=timeout)

    def check_out(self, data: Path, folder: Path, commit: str) -> None:
        """Write the files of a commit into a folder: the same bytes for every user, but for filters other than LFS."""
        listing = ""
        with contextlib.suppress(SourceError):
            listing = self.run("config", "-z", "--get-regexp", r"^filter\.")
        configuration = data / "filters"
        _write(configuration, filters(listing))
        lfs = ("-c", "filter.lfs.smudge=", "-c", "filter.lfs.process=", "-c", "filter.lfs.required=false")
        self.run(
            *(*lfs, "--git-dir", str(data.absolute()), "--work-tree", str(folder.absolute())),
            *("checkout", "--quiet", "--force", commit, "--"),
            extra={**ISOLATED, "GIT_CONFIG_GLOBAL": str(configuration.absolute())},
        )

    def succeeds(self, *arguments: str) -> bool:
        """Whether a command that talks to no server ends with success."""
        try:
            self.run_here(*arguments)
        except SourceError:
            return False
        return True

    def name_uncommitted(self, work_tree: Path, below: str = ".") -> None:
        """Warn of what differs from the current commit below a path of a work tree; raises `SourceError` for none."""
        lines = self.run("-C", str(work_tree.absolute()), "status", "--porcelain", "--", below).splitlines()
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
        self._fetch(folder, url, commit, () if blobs else ("--filter=blob:none",))

    def fetch_small_files(self, folder: Path, url: str, commit: str) -> None:
        """Fetch one commit with all contents that are not longer than a path may be, and others where it must."""
        self._fetch(folder, url, commit, (f"--filter=blob:limit={_LONGEST_PATH + 1}",))

    def _fetch(self, folder: Path, url: str, commit: str, narrow: Sequence[str]) -> None:
        if not (folder / "HEAD").exists():
            self._init(folder, commit)
        base = ("-C", str(folder), "fetch", "--quiet", "--no-tags", "--no-recurse-submodules")
        try:
            self.run(*base, "--depth=1", *narrow, "--", url, commit)
        except SourceError as error:
            if error.temporary or isinstance(error, SourceRefused | UnsupportedServer):
                raise
            logger().debug("the server gives no single commit; fetching all branches and tags")
            # In the same repository the failed fetch has left a promisor remote, from which git fetches one by one.
            shutil.rmtree(folder)
            self._init(folder, commit)
            self.run(*base, "--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            if not self.succeeds("-C", str(folder), "cat-file", "-e", f"{commit}^{{commit}}"):
                raise no_such_ref(commit, url) from error

    def _init(self, folder: Path, commit: str) -> None:
        """Make a bare repository whose object names are as long as this one; without the user's template."""
        self.run_here("init", "--quiet", "--bare", *init_options(commit), str(folder))

    def history(self, folder: Path, url: str) -> None:
        """Fetch the commits of all branches and tags, without their files where the server can."""
        lines = self._list_remote(url, "HEAD", "refs/heads/*").splitlines()
        self._init(folder, next((line.partition("\t")[0] for line in lines if not line.startswith("ref: ")), ""))
        base = ("-C", str(folder), "fetch", "--quiet", "--no-recurse-submodules")
        self.run(*base, "--filter=tree:0", "--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")

    def expand(self, folder: Path, url: str, short: str) -> str:
        """The whole id of an abbreviated commit."""
        with tempfile.TemporaryDirectory(prefix="history-", dir=folder) as history:
            self.history(Path(history), url)
            try:
                return self.run_here("-C", history, "rev-parse", "--verify", "--quiet", f"{short}^{{commit}}").strip()
            except SourceError as error:
                raise no_such_ref(short, url) from error


def no_such_ref(ref: str, url: str) -> SourceError:
    """What a ref is answered with that the repository does not have."""
    return SourceError(f"{url} has no branch, tag or commit {ref}", advice="Push it first, or correct `ref`.")


def is_on_this_machine(url: str) -> bool:
    """Whether a URL is the path of a repository."""
    return url.startswith(("/", "file://"))


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
    configuration: str = ""
    helper: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path, url: str, credentials: GitCredentials | None) -> "_Access":
        """Only what the transport of this URL uses is written into the folder."""
        origin = origin_of(url)
        if credentials is None or origin is None:
            return cls({})
        if origin.scheme in ("http", "https") and credentials.password is not None:
            environment, options = _password_access(folder, url, credentials.username, credentials.password)
            configuration = _password_configuration(url, credentials.username)
            return cls(environment, options, origin, configuration, _helper_options(folder, origin))
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
    _write(folder / "helper", _credential_helper(folder, scheme, host), mode=0o700)
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


def _password_configuration(url: str, username: str) -> str:
    """Configuration that replaces the user name and the headers that the user's own has for this URL.

    The most specific section counts, which is that of the URL itself; after a redirect on the same server, the host's.
    """
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].rpartition("@")[2]
    places = (f"{scheme}://{host}", url)
    names = (f'[credential "{quoted(each)}"]\n\tusername = "{quoted(username)}"\n' for each in places)
    headers = (f'[http "{quoted(each)}"]\n\textraHeader =\n' for each in places)
    return "".join((*names, *headers))


def _takes(url: str, credentials: GitCredentials) -> bool:
    """Whether a login can be used for a URL, which needs none or has none of its own."""
    origin = origin_of(url)
    if origin is None or origin.scheme == "git":
        return True
    if origin.scheme == "ssh":
        return credentials.ssh_key is not None
    user = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    return credentials.password is not None and ":" not in user


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


def _credential_helper(folder: Path, scheme: str, host: str) -> str:
    """A credential helper that knows one server, compared as a whole. Source: git's gitcredentials(7)."""
    places = " | ".join(shlex.quote(f"{scheme}://{each}") for each in _spellings(scheme, host))
    username, password = (shlex.quote(str(folder / name)) for name in ("username", "password"))
    return "\n".join(
        (
            "#!/bin/sh",
            '[ "$1" = get ] || exit 0',
            "while read -r line; do",
            '  case "$line" in protocol=*) scheme=${line#protocol=} ;; host=*) host=${line#host=} ;; esac',
            "done",
            'case "$scheme://$host" in',
            f'{places}) echo "username=$(cat {username})"; echo "password=$(cat {password})" ;;',
            "esac\n",
        )
    )


def _helper_options(folder: Path, origin: Origin) -> tuple[str, ...]:
    host = origin.host if origin.port == DEFAULT_PORTS[origin.scheme] else f"{origin.host}:{origin.port}"
    command = f"!{shlex.quote(str(folder / 'helper'))}"
    return ("-c", f"credential.{origin.scheme}://{host}.helper={command}")


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
