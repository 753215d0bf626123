"""git's credentials reach one server only, and no server makes git start processes without end."""

import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from soci_pipeline.errors import SourceError
from soci_pipeline.git import source
from soci_pipeline.git.errors import SourceRefused, UnsupportedServer
from soci_pipeline.git.program import Git
from soci_pipeline.git.sign_in import GitCredentials
from tests.support.certificates import certificate
from tests.support.git_http import (
    plain_web_server,
    redirecting,
    requiring_login,
    served_over_http,
    smart_until_fetched,
)
from tests.support.git_repositories import Repository, repository
from tests.support.programs import write_program

LOGIN = GitCredentials(username="robot", password=SecretStr("hunter2"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for git's configuration; the tests' own servers are reached without a proxy."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def app(tmp_path: Path) -> Repository:
    """A repository of two commits; ``root/app.git`` is a bare copy of it."""
    made = repository(tmp_path / "app", {"Dockerfile": "FROM scratch\n"})
    made.commit({"version": "2"})
    made.git("clone", "--quiet", "--bare", ".", str(tmp_path / "root/app.git"))
    made.git("-C", str(tmp_path / "root/app.git"), "update-server-info")
    return made


def _robot(path: str, user: str, password: str) -> bool:
    return (user, password) == ("robot", "hunter2")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("login_first", [False, True])
def test_a_redirect_to_another_server_does_not_receive_the_login(status: int, login_first: bool) -> None:
    logins: list[str] = []
    with (
        requiring_login(logins) as other,
        redirecting(other, status=status, login_first=login_first) as url,
        pytest.raises(SourceError) as raised,
    ):
        source.resolve(f"{url}/team/app.git", credentials=LOGIN)
    assert logins == []
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("followed", ["true", "initial"])
def test_a_redirect_after_the_login_does_not_receive_it_either(
    app: Repository, tmp_path: Path, home: Path, followed: str
) -> None:
    (home / ".gitconfig").write_text(f"[http]\n\tfollowRedirects = {followed}\n")
    logins: list[str] = []
    requests: list[str] = []
    with (
        requiring_login(logins, requests=requests) as other,
        served_over_http(tmp_path / "root", _robot, posts_to=other) as address,
        pytest.raises(SourceError),
    ):
        source.resolve(f"{address}/app.git", credentials=LOGIN)
    assert logins == []
    assert requests == []


@pytest.mark.parametrize("section", ["http", 'http "ADDRESS"', 'http "ADDRESS/app.git"'])
def test_alternates_of_a_server_that_turns_into_a_plain_one_do_not_receive_the_login(
    app: Repository, tmp_path: Path, home: Path, section: str
) -> None:
    commit = app.git("rev-parse", "HEAD")
    logins: list[str] = []
    requests: list[str] = []
    plain = tmp_path / "plain/app.git"
    (plain / "info").mkdir(parents=True)
    (plain / "info/refs").write_text(f"{commit}\trefs/heads/main\n")
    (plain / "objects/info").mkdir(parents=True)
    with (
        requiring_login(logins, requests=requests) as other,
        smart_until_fetched(tmp_path / "root", plain_root=tmp_path / "plain", requires_login=True) as address,
    ):
        (home / ".gitconfig").write_text(f"[{section.replace('ADDRESS', address)}]\n\tfollowRedirects = true\n")
        (plain / "objects/info/http-alternates").write_text(f"{other}/other.git/objects\n")
        with pytest.raises(SourceError, match="alternate disabled"):
            source.is_ancestor(f"{address}/app.git", commit, commit, credentials=LOGIN)
    assert (requests, logins) == ([], [])


@pytest.mark.parametrize("alias", ["git@git.example.com:", "https://git.example.com/"])
def test_a_plain_web_server_under_another_url_of_the_machine_is_rejected(
    app: Repository, tmp_path: Path, home: Path, alias: str
) -> None:
    commit = app.git("rev-parse", "HEAD")
    with plain_web_server(tmp_path / "root") as address:
        (home / ".gitconfig").write_text(f'[url "{address}/"]\n\tinsteadOf = {alias}\n')
        with pytest.raises(UnsupportedServer, match="dumb HTTP protocol is not supported"):
            source.is_ancestor(f"{alias}app.git", commit, commit)


@pytest.mark.parametrize("change", [("127.0.0.1", "localhost"), ("//", "//robot@"), ("//", "//someone@")])
def test_another_name_or_a_user_in_the_redirect_does_not_receive_the_login(change: tuple[str, str]) -> None:
    logins: list[str] = []
    with (
        requiring_login(logins) as other,
        redirecting(other.replace(*change)) as url,
        pytest.raises(SourceError, match="requires a login, but the credentials are only for"),
    ):
        source.resolve(f"{url}/team/app.git", credentials=LOGIN)
    assert logins == []


@pytest.mark.parametrize("operation", ["resolve", "check_out", "is_ancestor"])
def test_every_operation_keeps_the_login_from_another_server(operation: str, tmp_path: Path) -> None:
    logins: list[str] = []
    commit = "a" * 40
    with requiring_login(logins) as other, redirecting(other) as address:
        url = f"{address}/app.git"
        found = source.ResolvedSource(url=url, ref=commit, commit=commit, commit_time=1)
        calls: dict[str, Callable[[], object]] = {
            "resolve": lambda: source.resolve(url, credentials=LOGIN),
            "check_out": lambda: source.check_out(found, tmp_path / "tree", credentials=LOGIN),
            "is_ancestor": lambda: source.is_ancestor(url, commit, "b" * 40, credentials=LOGIN),
        }
        with pytest.raises(SourceError, match="requires a login"):
            calls[operation]()
    assert logins == []


def test_a_source_on_https_is_not_fetched_over_http(tmp_path: Path, home: Path) -> None:
    own = certificate(tmp_path, "git.example.com")
    (home / ".gitconfig").write_text(f"[http]\n\tsslCAInfo = {own.certificate}\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    logins: list[str] = []
    with (
        requiring_login(logins) as other,
        redirecting(other, tls=context) as url,
        pytest.raises(SourceError, match="redirects to a protocol that is not allowed"),
    ):
        source.resolve(f"{url}/team/app.git", credentials=LOGIN)
    assert logins == []


def test_a_proxy_does_not_receive_the_login(monkeypatch: pytest.MonkeyPatch) -> None:
    logins: list[str] = []
    with requiring_login(logins, status=407) as proxy:
        monkeypatch.setenv("http_proxy", proxy.replace("//", "//someone@"))
        with pytest.raises(SourceError):
            source.resolve("http://git.example.com/app.git", credentials=LOGIN)
    assert not any("hunter2" in login for login in logins)


def test_a_redirect_on_the_same_server_keeps_the_login(app: Repository, tmp_path: Path) -> None:
    with served_over_http(tmp_path / "root", _robot, renamed={"/old.git": "/app.git"}) as address:
        found = source.resolve(f"{address}/old.git", credentials=LOGIN)
        tree = source.check_out(found, tmp_path / "tree", credentials=LOGIN)
        assert source.is_ancestor(found.url, found.commit, found.commit, credentials=LOGIN)
    assert (tree / "version").read_text() == "2"


@pytest.mark.parametrize("username", ["robot", "AKIA%token/+=", "jane@example.com", "it's"])
def test_the_login_is_given_whatever_the_name_of_the_user_is(app: Repository, tmp_path: Path, username: str) -> None:
    def check(path: str, user: str, password: str) -> bool:
        return (user, password) == (username, "hunter2")

    login = GitCredentials(username=username, password=SecretStr("hunter2"))
    with served_over_http(tmp_path / "root", check) as address:
        assert source.resolve(f"{address}/app.git", credentials=login).commit == app.git("rev-parse", "HEAD")


def test_the_login_is_given_where_the_machine_wants_paths_in_prompts(
    app: Repository, tmp_path: Path, home: Path
) -> None:
    with served_over_http(tmp_path / "root", _robot) as address:
        (home / ".gitconfig").write_text(f'[credential "{address}"]\n\tuseHttpPath = true\n')
        source.resolve(f"{address}/app.git", credentials=LOGIN)


def test_no_helper_of_the_machine_stores_the_login(app: Repository, tmp_path: Path, home: Path) -> None:
    with served_over_http(tmp_path / "root", _robot) as address:
        (home / ".gitconfig").write_text(
            f'[credential]\n\thelper = store\n[credential "{address}"]\n\thelper = store\n'
        )
        source.resolve(f"{address}/app.git", credentials=LOGIN)
    assert not (home / ".git-credentials").exists()


@pytest.mark.parametrize(
    ("url", "prompts"),
    [
        ("https://git.example.com/a", ["https://git.example.com", "https://git.example.com:443"]),
        ("https://git.example.com:443/a", ["https://git.example.com", "https://git.example.com:443"]),
        ("http://Git.example.com:8080/a", ["http://Git.example.com:8080", "http://git.example.com:8080"]),
        ("https://[::1]:8443/a", ["https://[::1]:8443"]),
        ("https://[::1]/a", ["https://[::1]", "https://[::1]:443"]),
        ("https://my_git/a", ["https://my_git", "https://my%5Fgit"]),
    ],
)
def test_the_askpass_program_answers_for_the_server_of_the_source(url: str, prompts: list[str]) -> None:
    for place in prompts:
        assert _answer(url, f"Username for '{place}': ") == "robot"
        scheme, _, host = place.partition("://")
        assert _answer(url, f"Password for '{scheme}://robot@{host}': ") == "hunter2"


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "Username",
        "Password",
        "Password: ",
        "Username for 'http://git.example.com': ",
        "Username for 'https://git.example.com:8443': ",
        "Username for 'https://git.example.com.evil.example': ",
        "Username for 'https://evil.example/https://git.example.com': ",
        "Username for 'https://git.example.com/.evil.example': ",
        "Password for 'https://robot@evil.example': ",
        "Password for 'https://someone@git.example.com': ",
        "Password for 'https://evil.example/@git.example.com': ",
        "Password for 'https://robot@git.example.com\nhttps://evil.example': ",
        "Password for 'https://git.example.com': ",
        "Password for 'cert:///etc/ssl/client.pem': ",
        "Passphrase for key '/root/.ssh/id_ed25519': ",
        'Username for "https://git.example.com"',
        "*",
    ],
)
def test_the_askpass_program_answers_nobody_else(prompt: str) -> None:
    assert _answer("https://git.example.com/app", prompt) is None


def _answer(url: str, prompt: str) -> str | None:
    """What the askpass program of a session prints for a prompt; None where it fails and prints nothing."""
    with Git.session(url, LOGIN) as git:
        done = subprocess.run([git.environment["GIT_ASKPASS"], prompt], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == bool(done.stdout)
    return done.stdout or None


@pytest.mark.parametrize(
    "url", ["ssh://git.example.com/app", "git@git.example.com:app", "git://git.example.com/app", "/srv/app"]
)
def test_a_password_is_not_made_available_to_other_transports(url: str) -> None:
    with Git.session(url, LOGIN) as git:
        assert git.environment["GIT_ASKPASS"] == ""


def test_an_ssh_key_is_not_made_available_to_other_transports_and_enters_no_agent() -> None:
    login = GitCredentials(ssh_key=SecretStr("the key"))
    with Git.session("https://git.example.com/app", login) as git:
        assert git.environment["GIT_SSH_COMMAND"] == "ssh -o BatchMode=yes"
    with Git.session("git@git.example.com:app", login) as git:
        for option in ("AddKeysToAgent=no", "ForwardAgent=no", "ControlPath=none", "IdentitiesOnly=yes"):
            assert f"-o {option}" in git.environment["GIT_SSH_COMMAND"]


def test_a_filter_that_runs_on_the_files_of_a_commit_has_no_login(app: Repository, tmp_path: Path, home: Path) -> None:
    seen = tmp_path / "seen"
    app.commit({".gitattributes": "* filter=spy\n"})
    app.git("push", "--quiet", str(tmp_path / "root/app.git"), "main")
    (home / ".gitconfig").write_text(
        f'[filter "spy"]\n\tsmudge = "echo ${{GIT_ASKPASS:-none}} $GIT_ALLOW_PROTOCOL >> {seen}; cat"\n'
    )
    with served_over_http(tmp_path / "root", _robot) as address:
        found = source.resolve(f"{address}/app.git", credentials=LOGIN)
        source.check_out(found, tmp_path / "tree", credentials=LOGIN)
    assert set(seen.read_text().splitlines()) == {"none none"}


def test_the_servers_of_submodules_are_not_contacted(app: Repository, tmp_path: Path) -> None:
    logins: list[str] = []
    requests: list[str] = []
    with requiring_login(logins, requests=requests) as other, served_over_http(tmp_path / "root", _robot) as address:
        commit = app.git("rev-parse", "HEAD")
        (app.path / ".gitmodules").write_text(f'[submodule "lib"]\n\tpath = lib\n\turl = {other}/lib.git\n')
        app.git("update-index", "--add", "--cacheinfo", f"160000,{commit},lib")
        app.git("add", ".gitmodules")
        app.git("commit", "--quiet", "--message", "submodule")
        app.git("push", "--quiet", str(tmp_path / "root/app.git"), "main")
        found = source.resolve(f"{address}/app.git", credentials=LOGIN)
        tree = source.check_out(found, tmp_path / "tree", credentials=LOGIN)
    assert (tree / ".gitmodules").exists()
    assert (requests, logins) == ([], [])


@contextmanager
def _counted(home: Path) -> Iterator[list[Path]]:
    """The git processes that the block starts: one file each, listed when it ends."""
    traces, counted = home / "traces", list[Path]()
    traces.mkdir()
    (home / ".gitconfig").write_text(f"[trace2]\n\teventTarget = {traces}\n")
    try:
        yield counted
    finally:
        counted.extend(traces.iterdir())


@pytest.mark.parametrize("operation", ["resolve", "resolve a short commit", "check_out", "is_ancestor"])
def test_a_plain_web_server_is_rejected_with_few_processes(
    app: Repository, tmp_path: Path, home: Path, operation: str
) -> None:
    commit = app.git("rev-parse", "HEAD")
    with plain_web_server(tmp_path / "root") as address, _counted(home) as processes:
        url = f"{address}/app.git"
        found = source.ResolvedSource(url=url, ref=commit, commit=commit, commit_time=1)
        calls: dict[str, Callable[[], object]] = {
            "resolve": lambda: source.resolve(url),
            "resolve a short commit": lambda: source.resolve(url, commit[:10]),
            "check_out": lambda: source.check_out(found, tmp_path / "tree"),
            "is_ancestor": lambda: source.is_ancestor(url, commit, commit),
        }
        with pytest.raises(UnsupportedServer, match="dumb HTTP protocol is not supported") as raised:
            calls[operation]()
    assert "git http-backend" in str(raised.value.advice)
    assert not raised.value.temporary
    assert len(processes) <= 10
    assert not list(tmp_path.glob("tree/*"))


def test_a_server_that_turns_into_a_plain_one_starts_few_processes(app: Repository, tmp_path: Path, home: Path) -> None:
    commit = app.git("rev-parse", "HEAD")
    with smart_until_fetched(tmp_path / "root") as address, _counted(home) as processes:
        assert source.is_ancestor(f"{address}/app.git", commit, commit)
    assert len(processes) < 50


def test_an_older_git_that_starts_itself_without_end_is_stopped_at_a_bound(
    app: Repository, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, git = app.git("rev-parse", "HEAD"), shutil.which("git")
    write_program(tmp_path / "bin", "git", f'unset GIT_NO_LAZY_FETCH\nexec {git} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with (
        smart_until_fetched(tmp_path / "root") as address,
        _counted(home) as processes,
        pytest.raises(UnsupportedServer, match="git started more than 32 processes and was killed"),
    ):
        source.is_ancestor(f"{address}/app.git", commit, commit)
    assert len(processes) < 150


def test_the_fallback_fetches_into_a_repository_without_a_promisor_remote(app: Repository, tmp_path: Path) -> None:
    older = app.git("rev-parse", "HEAD~1")
    with served_over_http(tmp_path / "root", _robot, refuse_single_commits=True) as address:
        url = f"{address}/app.git"
        with Git.session(url, LOGIN) as git:
            git.fetch(tmp_path / "fetched", url, older, blobs=False)
            assert git.succeeds("-C", str(tmp_path / "fetched"), "cat-file", "-e", f"{older}:Dockerfile")
    assert "promisor" not in (tmp_path / "fetched/config").read_text()


def test_refused_credentials_are_not_tried_a_second_time(app: Repository, tmp_path: Path) -> None:
    tries: list[str] = []

    def refuse(path: str, user: str, password: str) -> bool:
        tries.append(path)
        return False

    with served_over_http(tmp_path / "root", refuse) as address:
        url = f"{address}/app.git"
        with Git.session(url, LOGIN) as git, pytest.raises(SourceRefused):
            git.fetch(tmp_path / "fetched", url, "a" * 40, blobs=True)
    assert len(tries) == 1
