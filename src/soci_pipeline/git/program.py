"""Run the git program safely: it never prompts, and runs no hooks and no transports that are commands.

A helper script passes the credentials to git by reading files of mode 0600: they appear in no argument, environment
variable or URL. For CodeCommit they are derived from this machine's role, or from a session passed in.

Credentials are bound to the scheme, host and port of the source. git names the server that requires the login in its
prompt; the helper script compares it and answers for no other server, neither after a redirect nor for a proxy.
Redirects are followed for the first request only, and alternates never. A source on https is never fetched over http.
The machine's credential helpers neither replace nor store the credentials of a source. git's dumb HTTP protocol is
rejected: with it, a partial clone recursively starts one git process per object.

The configuration of the worker's user decides only how a server is reached (proxies, certificates, `insteadOf`).
Commands that only read or write local files run without it.
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
from soci_pipeline.git.errors import SourceRefused, UnsupportedServer, no_such_ref, source_error
from soci_pipeline.git.sign_in import Access, GitCredentials, accepts, write_private
from soci_pipeline.log import logger
from soci_pipeline.machine import programs

_NETWORK_SECONDS = 900.0
_NAMED = 10
_LONGEST_PATH = 4096
# A fetch uses about six: git, its transport, and those that write and check the pack.
_MAX_PROCESSES = 32
_TRANSPORTS = ("file", "git", "http", "https", "ssh")


def plain_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which git never prompts, prints English, and uses only the repository it is given."""
    # GIT_DIR and similar variables would point git at another repository, for instance inside a hook.
    plain = {name: value for name, value in given.items() if not name.startswith("GIT_")}
    return plain | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


@contextlib.contextmanager
def remote(url: str, credentials: GitCredentials | None) -> Iterator[tuple["Git", str]]:
    """Yield a `Git` that can sign in to a remote, and the URL to pass to it."""
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
    """The git program, with an environment in which it never prompts and runs no hooks."""

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
        """Yield a `Git` for one remote, or for local use only; its credential files are removed afterwards."""
        environment = plain_environment(os.environ) | {
            "GIT_ASKPASS": "",
            "SSH_ASKPASS": "",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
            # `ssh.variant` in the user's configuration may describe another program.
            "GIT_SSH_VARIANT": "ssh",
            "GIT_ALLOW_PROTOCOL": "none",
        }
        if url is None:
            yield cls(environment)
            return
        # Since 2.39.4, this stops git from fetching single objects of a partial clone; older releases ignore it.
        environment["GIT_NO_LAZY_FETCH"] = "1"
        used = cls(environment)._used(url, credentials)
        environment["GIT_ALLOW_PROTOCOL"] = _allowed_protocols(used)
        with tempfile.TemporaryDirectory(prefix="soci-git-") as folder:
            access = Access.of(Path(folder), used, credentials)
            # The longest match wins, so mapping the URL to itself disables any other rewriting.
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
        """Return the URL that git really uses: the user's configuration may rewrite it (`url.<base>.insteadOf`).

        With credentials, a rewrite to another transport or to a URL that contains a password is ignored.
        """
        rewritten = self._rewritten(url)
        return rewritten if credentials is None or accepts(rewritten, credentials) else url

    def _rewritten(self, url: str) -> str:
        """Return the URL after git's rewriting."""
        try:
            return self.run("ls-remote", "--get-url", "--", url).strip()
        except SourceError:
            # The next command fails for the same reason and reports it. Until then, bind the credentials to the URL as
            # given.
            return url

    def run(self, *arguments: str, extra: Mapping[str, str] | None = None, timeout: float = _NETWORK_SECONDS) -> str:
        """Run git and return its standard output; raise `SourceError` on failure. Paths must be absolute."""
        argv, environment = ["git", *self._options, *arguments], {**self.environment, **(extra or {})}
        try:
            return programs.run(
                argv,
                package="git",
                env=environment,
                # The current folder may be a repository with its own configuration.
                cwd=Path("/"),
                timeout=timeout,
                max_processes=_MAX_PROCESSES,
            ).stdout
        except ToolFailed as error:
            raise source_error(error, self._bound_to) from error

    def run_here(self, *arguments: str) -> str:
        """Run a command that contacts no server, without the user's configuration; return its standard output."""
        return self.run(*arguments, extra=ISOLATED)

    def run_lfs(self, *arguments: str, timeout: float) -> None:
        """Run git-lfs with a credential helper, because its prompts to an askpass program differ from git's."""
        argv = (*self._helper, *arguments)
        self.run(*argv, extra={"GIT_ASKPASS": ""}, timeout=timeout)

    def check_out(self, data: Path, folder: Path, commit: str) -> None:
        """Write the files of a commit into a folder: the same for every user, unless filters other than LFS apply."""
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
        """Whether a command that contacts no server succeeds."""
        try:
            self.run_here(*arguments)
        except SourceError:
            return False
        return True

    def status(self, work_tree: Path, *arguments: str) -> str:
        """Return the uncommitted changes as `git status --porcelain` prints them; the repository is only read.

        Filters that the repository itself configures do not run, and its submodules are not entered, since their
        configuration could name commands too. A file that needs such a filter may therefore be listed as changed.
        """
        place = ("-C", str(work_tree.absolute()))
        listing = ""
        with contextlib.suppress(SourceError):
            names = r"^(filter|lfs\.extension)\."
            listing = self.run(*place, "config", "-z", "--show-scope", "--get-regexp", names)
        # A user's `status.showUntrackedFiles` could hide files that are not committed.
        shown = ("--porcelain", "--untracked-files=normal", "--ignore-submodules=dirty")
        return self.run("--no-optional-locks", *place, "status", *shown, *arguments, extra=without_own_filters(listing))

    def name_uncommitted(self, work_tree: Path, below: str = ".") -> None:
        """Warn about uncommitted changes below a path of a work tree; raise `SourceError` if git fails."""
        lines = self.status(work_tree, "--", below).splitlines()
        if lines:
            names = ", ".join(line[3:] for line in lines[:_NAMED])
            more = f" and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
            logger().warning("uncommitted changes are not published: %s%s", names, more)

    def remote_refs(self, url: str) -> dict[str, str]:
        """Return the refs of the remote: name -> object id; ``ref: HEAD`` maps to the name of the default branch."""
        refs: dict[str, str] = {}
        for line in self._list_remote(url).splitlines():
            value, _, name = line.partition("\t")
            if value.startswith("ref: "):
                # A clone also has a HEAD for each of its remotes.
                refs |= {"ref: HEAD": value.removeprefix("ref: ")} if name == "HEAD" else {}
            elif name:
                refs[name] = value
        return refs

    def _list_remote(self, url: str, *patterns: str) -> str:
        """Return the output of `git ls-remote`; raise `UnsupportedServer` for dumb HTTP."""
        with tempfile.TemporaryDirectory(prefix="soci-git-") as folder:
            packets = Path(folder) / "packets"
            listing = self.run(
                *("ls-remote", "--symref", "--", url, *patterns), extra={"GIT_TRACE_PACKET": str(packets)}
            )
            # Only the smart protocol uses packets, so git traces none for dumb HTTP.
            if self._remote.startswith(("http://", "https://")) and not packets.exists():
                raise UnsupportedServer(f"{url} is a plain web server; git's dumb HTTP protocol is not supported")
        return listing

    def fetch(self, folder: Path, url: str, commit: str, *, blobs: bool) -> None:
        """Fetch one commit without history; fetch everything if the server does not allow fetching single commits."""
        self._fetch(folder, url, commit, () if blobs else ("--filter=blob:none",))

    def fetch_small_files(self, folder: Path, url: str, commit: str) -> None:
        """Fetch one commit with only the contents that are short enough to be a path, if the server supports it."""
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
            logger().debug("the server does not serve single commits; fetching all branches and tags")
            # The failed fetch left a promisor remote in the repository, from which git would fetch objects one by one.
            shutil.rmtree(folder)
            self._init(folder, commit)
            self.run(*base, "--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            if not self.succeeds("-C", str(folder), "cat-file", "-e", f"{commit}^{{commit}}"):
                raise no_such_ref(commit, url) from error

    def _init(self, folder: Path, commit: str) -> None:
        """Create a bare repository with object names as long as ``commit``, without the user's template."""
        self.run_here("init", "--quiet", "--bare", *init_options(commit), str(folder))

    def history(self, folder: Path, url: str) -> None:
        """Fetch the commits of all branches and tags, without their files if the server supports it."""
        lines = self._list_remote(url, "HEAD", "refs/heads/*").splitlines()
        self._init(folder, next((line.partition("\t")[0] for line in lines if not line.startswith("ref: ")), ""))
        base = ("-C", str(folder), "fetch", "--quiet", "--no-recurse-submodules")
        self.run(*base, "--filter=tree:0", "--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")

    def expand(self, folder: Path, url: str, short: str) -> str:
        """Return the full id of an abbreviated commit; raise `SourceError` if it does not exist."""
        with tempfile.TemporaryDirectory(prefix="history-", dir=folder) as history:
            self.history(Path(history), url)
            try:
                return self.run_here("-C", history, "rev-parse", "--verify", "--quiet", f"{short}^{{commit}}").strip()
            except SourceError as error:
                raise no_such_ref(short, url) from error


def _allowed_protocols(url: str) -> str:
    """Return the protocols that git may use for this URL, redirects included: its own, and https for http."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        return "file" if url.startswith("/") else "ssh"
    if scheme not in _TRANSPORTS:
        return "none"
    return "http:https" if scheme == "http" else scheme
