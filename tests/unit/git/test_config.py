"""What the configuration of the worker's user, its environment and the format of object names change: nothing."""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from soci_pipeline.git import source
from soci_pipeline.git.config import OPTIONS
from soci_pipeline.git.program import Git
from soci_pipeline.git.sign_in import GitCredentials
from soci_pipeline.git.source import ResolvedSource
from tests.support.git_http import requiring_login, served_over_http
from tests.support.git_repositories import MOMENT, Repository, repository
from tests.support.programs import write_program

LOGIN = GitCredentials(username="robot", password=SecretStr("hunter2"))
FILES = {"Dockerfile": "FROM scratch\n", "unix.txt": "a\nb\n", "dos.txt": "a\r\nb\r\n", ".gitattributes": "*.md text\n"}
NAMES = sorted([*FILES, "README.md", "link"])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for git's configuration; the tests' own servers are reached without a proxy."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / ".config"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def app(tmp_path: Path) -> Repository:
    """A repository; ``root/app.git`` is a bare copy of it."""
    return _app(tmp_path)


def _app(folder: Path, *init: str) -> Repository:
    (folder / "app").mkdir()
    made = Repository(folder / "app")
    made.git("init", "--quiet", "--initial-branch=main", *init)
    (made.path / "link").symlink_to("unix.txt")
    made.commit({**FILES, "README.md": "one\n"})
    made.commit({"README.md": "two\n"})
    made.git("tag", "v1.2")
    made.git("clone", "--quiet", "--bare", ".", str(folder / "root/app.git"))
    return made


def _robot(path: str, user: str, password: str) -> bool:
    return (user, password) == ("robot", "hunter2")


def _publish(tmp_path: Path, url: str, app: Repository, *, credentials: GitCredentials | None = LOGIN) -> None:
    """All that a publication does with git, compared with what is in the repository."""
    head, first = app.git("rev-parse", "HEAD"), app.git("rev-parse", "HEAD~1")
    found = source.resolve(url, "main", files=(".", "Dockerfile"), credentials=credentials)
    main = "refs/heads/main"
    assert found == ResolvedSource(
        url=url, ref=main, commit=head, commit_time=MOMENT, version="1.2", branch=main, default_branch=main
    )
    assert source.is_ancestor(url, first, head, credentials=credentials) is True
    tree = source.check_out(found, tmp_path / "tree", credentials=credentials)
    assert sorted(path.name for path in tree.iterdir()) == NAMES
    assert {name: (tree / name).read_bytes() for name in FILES} == {name: FILES[name].encode() for name in FILES}
    assert (tree / "README.md").read_bytes() == b"two\n"
    assert (tree / "link").is_symlink()
    assert stat.S_IMODE((tree / "Dockerfile").stat().st_mode) == 0o644


CONFIGURATIONS = {
    "what is written": """
        [core] autocrlf = true
            eol = crlf
            safecrlf = true
            attributesFile = ATTRIBUTES
            symlinks = false
            fileMode = false
            ignoreCase = true
            sparseCheckout = true
            hooksPath = HOOKS
        [init] templateDir = TEMPLATE
            defaultBranch = trunk
            defaultObjectFormat = sha256
            defaultRefFormat = reftable
        [filter "lfs"] smudge = false
            process = false
            required = true
        [submodule] recurse = true""",
    "what is allowed": """
        [safe] bareRepository = explicit
            directory =
        [protocol] allow = never
            version = 0
        [protocol "http"] allow = never
        [protocol "file"] allow = never
        [fetch] fsckObjects = true
            prune = true
            recurseSubmodules = true
            writeCommitGraph = true
            negotiationAlgorithm = noop
            unpackLimit = 1
        [transfer] fsckObjects = true
            bundleURI = true
        [maintenance] auto = true
            strategy = incremental
        [gc] auto = 1""",
    "who signs in, and what is printed": """
        [http] extraHeader = Authorization: Basic eDp5
        [credential] helper = "!echo username=someone; echo password=else; :"
            username = someone
        [ssh] variant = plink
        [color] ui = always
        [log] showSignature = true
            date = relative
        [core] quotePath = true
            pager = false
        [commit] gpgSign = true
        [tag] gpgSign = true
        [gpg] program = /bin/false
        [status] showUntrackedFiles = no""",
}


def _write(home: Path, text: str) -> None:
    template, hooks, attributes = home / "template", home / "hooks", home / "attributes"
    (template / "info").mkdir(parents=True)
    (template / "config").write_text('[core]\n\tautocrlf = true\n[remote "origin"]\n\turl = /nowhere\n')
    (template / "info/attributes").write_text("* text eol=crlf\n")
    for name in ("post-checkout", "reference-transaction", "pre-auto-gc"):
        write_program(hooks, name, "exit 1")
    attributes.write_text("* text eol=crlf\n")
    for word, path in (("TEMPLATE", template), ("HOOKS", hooks), ("ATTRIBUTES", attributes)):
        text = text.replace(word, str(path))
    (home / ".gitconfig").write_text(re.sub(r"] (?=\S)", "]\n", text))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_configuration_of_the_user_does_not_matter(app: Repository, tmp_path: Path, home: Path, name: str) -> None:
    _write(home, CONFIGURATIONS[name])
    with served_over_http(tmp_path / "root", _robot) as address:
        _publish(tmp_path, f"{address}/app.git", app)


def test_neither_does_it_for_a_repository_on_this_machine(app: Repository, tmp_path: Path, home: Path) -> None:
    _write(home, "".join(CONFIGURATIONS.values()))
    _publish(tmp_path, str(tmp_path / "root/app.git"), app, credentials=None)


def test_neither_does_what_is_in_the_users_other_folder(app: Repository, tmp_path: Path, home: Path) -> None:
    folder = home / ".config/git"
    folder.mkdir(parents=True)
    (folder / "attributes").write_text("* text eol=crlf\n")
    (folder / "config").write_text("[core]\n\tautocrlf = true\n[safe]\n\tbareRepository = explicit\n")
    with served_over_http(tmp_path / "root", _robot) as address:
        _publish(tmp_path, f"{address}/app.git", app)


@pytest.mark.parametrize(
    "environment",
    [
        {
            "GIT_DIR": "/nowhere",
            "GIT_WORK_TREE": "/nowhere",
            "GIT_INDEX_FILE": "/nowhere",
            "GIT_OBJECT_DIRECTORY": "/nowhere",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": "/nowhere",
            "GIT_TRACE": "1",
            "GIT_TRACE_PACKET": "1",
            "GIT_PAGER": "false",
            "GIT_EDITOR": "false",
        },
        {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "core.autocrlf",
            "GIT_CONFIG_VALUE_0": "true",
            "GIT_CONFIG_PARAMETERS": "'core.eol'='crlf'",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_DEFAULT_HASH": "sha256",
            "GIT_TEMPLATE_DIR": "/nowhere",
            "GIT_CEILING_DIRECTORIES": "/",
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_ALLOW_PROTOCOL": "none",
            "GIT_PROXY_COMMAND": "/bin/false",
            "GIT_SSH_COMMAND": "/bin/false",
            "GIT_ASKPASS": "/bin/false",
            "GIT_TERMINAL_PROMPT": "1",
        },
        {"LC_ALL": "de_DE.UTF-8", "LANGUAGE": "de", "LANG": "de_DE.UTF-8", "PAGER": "false", "TZ": "Asia/Tokyo"},
    ],
)
def test_the_variables_of_the_environment_do_not_matter(
    app: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = source.resolve(str(tmp_path / "root/app.git"), "main")
    tree = source.check_out(found, tmp_path / "tree")
    assert sorted(path.name for path in tree.iterdir()) == NAMES
    assert (tree / "unix.txt").read_bytes() == b"a\nb\n"


def test_the_repository_that_the_process_is_in_does_not_matter(
    app: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = repository(tmp_path / "other")
    other.git("config", "http.extraHeader", "Authorization: Basic eDp5")
    other.git("config", "core.autocrlf", "true")
    other.git("config", "url./nowhere/.insteadOf", "http://")
    monkeypatch.chdir(other.path)
    with served_over_http(tmp_path / "root", _robot) as address:
        _publish(tmp_path, f"{address}/app.git", app)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_repository_of_another_user_is_read(app: Repository, tmp_path: Path) -> None:
    for path in (tmp_path / "root", *(tmp_path / "root").rglob("*")):
        os.lchown(path, 4321, 4321)
    _publish(tmp_path, str(tmp_path / "root/app.git"), app, credentials=None)


def test_a_signed_commit_has_its_time_where_the_user_wants_signatures_shown(
    app: Repository, tmp_path: Path, home: Path
) -> None:
    write_program(tmp_path / "bin", "gpg", 'echo "gpg: Good signature" >&2; echo "[GNUPG:] GOODSIG 1 Test"')
    (home / ".gitconfig").write_text(f"[log]\n\tshowSignature = true\n[gpg]\n\tprogram = {tmp_path / 'bin/gpg'}\n")
    raw = app.git("cat-file", "commit", "HEAD")
    head, _, message = raw.partition("\n\n")
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n AAAA\n -----END PGP SIGNATURE-----"
    (tmp_path / "signed").write_text(f"{head}\n{signature}\n\n{message}\n")
    signed = app.git("hash-object", "-t", "commit", "-w", str(tmp_path / "signed"))
    app.git("update-ref", "refs/heads/main", signed)
    assert source.resolve(str(app.path), "main").commit_time == MOMENT


@pytest.mark.parametrize("rewriting", ["ssh://git@127.0.0.1:1/", "http://robot:wrong@ADDRESS/"])
def test_a_rewriting_that_the_login_cannot_be_used_for_does_not_count(
    app: Repository, tmp_path: Path, home: Path, rewriting: str
) -> None:
    with served_over_http(tmp_path / "root", _robot) as address:
        base = rewriting.replace("ADDRESS", address.removeprefix("http://"))
        (home / ".gitconfig").write_text(f'[url "{base}"]\n\tinsteadOf = {address}/\n')
        _publish(tmp_path, f"{address}/app.git", app)


def test_a_rewriting_to_a_mirror_counts_and_has_the_login(app: Repository, tmp_path: Path, home: Path) -> None:
    logins: list[str] = []
    with served_over_http(tmp_path / "root", _robot) as mirror, requiring_login(logins) as address:
        (home / ".gitconfig").write_text(f'[url "{mirror}/"]\n\tinsteadOf = {address}/\n')
        _publish(tmp_path, f"{address}/app.git", app)
    assert logins == []


def test_a_user_name_that_the_user_has_configured_for_the_server_does_not_replace_that_of_the_login(
    app: Repository, tmp_path: Path, home: Path
) -> None:
    with served_over_http(tmp_path / "root", _robot) as address:
        (home / ".gitconfig").write_text(
            f'[credential "{address}/app.git"]\n\tusername = someone\n[credential "{address}"]\n\tusername = else\n'
            f'[http "{address}/app.git"]\n\textraHeader = "Authorization: Basic eDp5"\n'
        )
        _publish(tmp_path, f"{address}/app.git", app)


def test_a_repository_with_sha_256_is_published(tmp_path: Path, home: Path) -> None:
    (home / ".gitconfig").write_text("[init]\n\tdefaultObjectFormat = sha1\n")
    app = _app(tmp_path, "--object-format=sha256")
    assert len(app.git("rev-parse", "HEAD")) == 64
    with served_over_http(tmp_path / "root", _robot) as address:
        _publish(tmp_path, f"{address}/app.git", app)
        head = app.git("rev-parse", "HEAD")
        assert source.resolve(f"{address}/app.git", head[:40], credentials=LOGIN).commit == head
        found = source.resolve(f"{address}/app.git", head, credentials=LOGIN)
    assert found.commit == head


def _without(*options: str) -> str:
    """A git that fails for options, as a release that does not have them."""
    cases = " ".join(f"*' {option}'*) echo 'error: unknown option' >&2; exit 129 ;;" for option in options)
    return f'case " $*" in {cases} esac'


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a git in front of the real one that does something first."""
    real = next(Path(folder) / "git" for folder in os.environ["PATH"].split(":") if (Path(folder) / "git").exists())

    def install(script: str) -> None:
        write_program(tmp_path / "old", "git", f'{script}\nexec {real} "$@"')
        monkeypatch.setenv("PATH", f"{tmp_path / 'old'}:{os.environ['PATH']}")

    return install


def test_a_git_without_the_newer_options_and_variables_publishes_the_same(
    app: Repository, tmp_path: Path, home: Path, older: Callable[[str], None]
) -> None:
    _write(home, CONFIGURATIONS["what is written"])
    # GIT_CONFIG_GLOBAL came with 2.32, GIT_NO_LAZY_FETCH with 2.39.4, --object-format with 2.29.
    older("unset GIT_CONFIG_GLOBAL GIT_NO_LAZY_FETCH\n" + _without("--object-format", "--refetch", "--initial-branch"))
    with served_over_http(tmp_path / "root", _robot) as address:
        _publish(tmp_path, f"{address}/app.git", app)


def test_a_server_and_a_git_without_partial_clones_publish_the_same(
    app: Repository, tmp_path: Path, older: Callable[[str], None]
) -> None:
    Repository(tmp_path / "root/app.git").git("config", "uploadpack.allowFilter", "false")
    with served_over_http(tmp_path / "root", _robot) as address:
        _publish(tmp_path, f"{address}/app.git", app)


def test_a_filter_of_the_user_runs_whatever_characters_are_in_it(app: Repository, tmp_path: Path, home: Path) -> None:
    app.commit({".gitattributes": "*.txt filter=upper\n"})
    (home / ".gitconfig").write_text(
        '[filter "upper"]\n\trequired\n\tsmudge = "tr \\"a\\" \'A\' # \\\\ ; ="\n[filter "a.b"]\n\tclean = cat\n'
    )
    tree = source.check_out(source.resolve(str(app.path)), tmp_path / "tree")
    assert (tree / "unix.txt").read_bytes() == b"A\nb\n"


def test_every_command_has_the_options_and_no_secret() -> None:
    with Git.session("https://git.example.com/app.git", LOGIN) as git:
        assert git._options[: len(OPTIONS)] == OPTIONS
        assert not any("hunter2" in option or "robot" in option for option in git._options)
