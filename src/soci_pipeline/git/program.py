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
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from soci_pipeline.aws.codecommit import CodeCommitSource
from soci_pipeline.errors import SourceError, ToolFailed
from soci_pipeline.git.address import Origin, is_on_this_machine
from soci_pipeline.git.config import ANY_OWNER, ISOLATED, OPTIONS, filters, init_options, quoted, without_own_filters
from soci_pipeline.git.errors import SourceRefused, UnsupportedServer, no_such_ref, understood
from soci_pipeline.git.sign_in import Access, GitCredentials, takes, write_private
from soci_pipeline.log import logger
from soci_pipeline.machine import programs

_NETWORK_SECONDS = 900.0
_NAMED = 10
_LONGEST_PATH = 4096
# A fetch takes about six: git, its transport, and what writes and checks the pack.
_MAX_PROCESSES = 32
_TRANSPORTS = ("file", "git", "http", "https", "ssh")


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
            access = Access.of(Path(folder), used, credentials)
            # The longest match counts, so a URL that is rewritten to itself is not rewritten.
            kept = f'[url "{quoted(url)}"]\n\tinsteadOf = "{quoted(url)}"\n' if used == url else ""
            write_private(Path(folder) / "config", kept + access.configuration)
            write_private(Path(folder) / "any-owner", ANY_OWNER)
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
        return rewritten if credentials is None or takes(rewritten, credentials) else url

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
            raise understood(error, self._bound_to) from error

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
        write_private(configuration, filters(listing))
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

    def status(self, work_tree: Path, *arguments: str) -> str:
        """What differs from the current commit, as `git status --porcelain` prints it; the repository is only read.

        Commands that the repository itself configures as filters do not run, and its submodules are not entered: their
        configuration could name such commands too. A file that needs one may then be among the changes.
        """
        place = ("-C", str(work_tree.absolute()))
        listing = ""
        with contextlib.suppress(SourceError):
            names = r"^(filter|lfs\.extension)\."
            listing = self.run(*place, "config", "-z", "--show-scope", "--get-regexp", names)
        # `status.showUntrackedFiles` of a user would hide files that are not committed.
        shown = ("--porcelain", "--untracked-files=normal", "--ignore-submodules=dirty")
        return self.run("--no-optional-locks", *place, "status", *shown, *arguments, extra=without_own_filters(listing))

    def name_uncommitted(self, work_tree: Path, below: str = ".") -> None:
        """Warn of what differs from the current commit below a path of a work tree; raises `SourceError` for none."""
        lines = self.status(work_tree, "--", below).splitlines()
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


def _allowed_protocols(url: str) -> str:
    """What git may fetch this URL over, redirects included: its own transport, and https for http."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        return "file" if url.startswith("/") else "ssh"
    if scheme not in _TRANSPORTS:
        return "none"
    return "http:https" if scheme == "http" else scheme
