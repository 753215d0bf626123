"""Sources: one ref is one commit, exactly that is fetched, and what could make git do something else is refused."""

import os
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from soci_pipeline.errors import SourceError
from soci_pipeline.git import source
from soci_pipeline.git.errors import SourceRefused
from soci_pipeline.git.sign_in import GitCredentials
from soci_pipeline.git.source import ResolvedSource
from tests.support.git_http import answering
from tests.support.git_repositories import MOMENT, Repository, repository, served
from tests.support.programs import write_program


@pytest.fixture
def work_tree(tmp_path: Path) -> Repository:
    return repository(tmp_path / "app", {"Dockerfile": "FROM scratch\n", "bin/run": "#!/bin/sh\n"})


def test_the_default_branch_is_resolved_to_its_commit_and_time(work_tree: Repository) -> None:
    commit = work_tree.git("rev-parse", "HEAD")
    found = source.resolve(str(work_tree.path))
    assert found == ResolvedSource(
        url=str(work_tree.path),
        ref="refs/heads/main",
        commit=commit,
        commit_time=MOMENT,
        version=None,
        branch="refs/heads/main",
        default_branch="refs/heads/main",
    )


def test_a_tag_or_commit_belongs_to_the_branch_that_has_it_as_its_head(work_tree: Repository) -> None:
    old = work_tree.git("rev-parse", "HEAD")
    work_tree.git("tag", "v1")
    work_tree.git("branch", "also-there")
    for ref in (old, "v1", "main"):
        assert source.resolve(str(work_tree.path), ref).branch == "refs/heads/main"
    assert source.resolve(str(work_tree.path), "also-there").branch == "refs/heads/also-there"
    work_tree.commit({"new": "x"})
    assert source.resolve(str(work_tree.path), old).branch == "refs/heads/also-there"
    work_tree.git("branch", "--delete", "--force", "also-there")
    for ref in (old, "v1"):
        found = source.resolve(str(work_tree.path), ref)
        assert (found.branch, found.default_branch) == (None, "refs/heads/main")


def test_a_ref_of_a_pull_request_is_never_taken_for_a_branch(work_tree: Repository) -> None:
    work_tree.git("checkout", "--quiet", "-b", "theirs")
    commit = work_tree.commit({"new": "x"})
    work_tree.git("update-ref", "refs/pull/7/head", commit)
    work_tree.git("checkout", "--quiet", "main")
    work_tree.git("branch", "--delete", "--force", "theirs")

    assert source.resolve(str(work_tree.path), "refs/pull/7/head").branch == "refs/pull/7/head"
    assert source.resolve(str(work_tree.path), commit).branch is None


def test_the_default_branch_of_a_clone_is_the_one_that_is_checked_out_there(
    work_tree: Repository, tmp_path: Path
) -> None:
    work_tree.git("clone", "--quiet", ".", str(tmp_path / "clone"))
    clone = Repository(tmp_path / "clone")
    clone.git("checkout", "--quiet", "-b", "feature")
    commit = clone.commit({"new": "x"})

    found = source.resolve(str(clone.path))

    assert (found.ref, found.commit) == ("refs/heads/feature", commit)


def test_a_branch_a_tag_a_commit_and_a_short_commit_mean_the_same(work_tree: Repository) -> None:
    commit = work_tree.git("rev-parse", "HEAD")
    work_tree.git("tag", "--annotate", "--message", "release", "v1.2.0")
    for ref, full in (
        ("main", "refs/heads/main"),
        ("v1.2.0", "refs/tags/v1.2.0"),
        ("refs/tags/v1.2.0", "refs/tags/v1.2.0"),
        (commit, commit),
        (commit[:10], commit),
    ):
        found = source.resolve(str(work_tree.path), ref)
        assert (found.ref, found.commit) == (full, commit)


def test_the_version_comes_from_the_highest_tag_on_the_commit(work_tree: Repository) -> None:
    for tag in ("v1.9.0", "v1.10.0", "v1.10.0-rc1", "nightly"):
        work_tree.git("tag", tag)
    assert source.resolve(str(work_tree.path), "main").version == "1.10.0"
    assert source.resolve(str(work_tree.path), "v1.9.0").version == "1.9.0"
    assert source.resolve(str(work_tree.path), "nightly").version == "nightly"


def test_a_name_that_is_branch_and_tag_of_different_commits_is_refused(work_tree: Repository) -> None:
    work_tree.git("tag", "both")
    work_tree.git("checkout", "--quiet", "-b", "both")
    work_tree.commit({"new": "x"})
    with pytest.raises(SourceError, match="is both a branch and a tag"):
        source.resolve(str(work_tree.path), "both")
    assert source.resolve(str(work_tree.path), "refs/tags/both").ref == "refs/tags/both"


@pytest.mark.parametrize("ref", ["nowhere", "b" * 40, "bbbbbbbb"])
def test_a_ref_that_does_not_exist_is_named(work_tree: Repository, ref: str) -> None:
    with pytest.raises(SourceError, match=ref):
        source.resolve(str(work_tree.path), ref)


@pytest.mark.parametrize("digits", ["502", "503"])
def test_digits_of_a_commit_are_no_answer_of_its_server(work_tree: Repository, digits: str) -> None:
    with pytest.raises(SourceError, match=r"^no branch, tag or commit .* in ") as raised:
        source.resolve(str(work_tree.path), digits + "b" * 37)
    assert not raised.value.temporary


def test_a_repository_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the git repository"):
        source.resolve(str(tmp_path / "nothing"))


def test_a_server_that_does_not_answer_is_a_temporary_error() -> None:
    with pytest.raises(SourceError, match="does not answer") as raised:
        source.resolve("git://127.0.0.1:1/app.git")
    assert raised.value.temporary


def test_a_web_server_that_does_not_answer_is_a_temporary_error() -> None:
    with pytest.raises(SourceError, match="does not answer") as raised:
        source.resolve("http://127.0.0.1:1/app.git")
    assert raised.value.temporary


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_web_server_that_cannot_just_now_is_a_temporary_error(status: int) -> None:
    with answering(status) as address, pytest.raises(SourceError, match="does not answer") as raised:
        source.resolve(f"{address}/app.git")
    assert raised.value.temporary


def test_a_proxy_that_reaches_nobody_is_a_temporary_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(503) as address:
        monkeypatch.setenv("https_proxy", address)
        with pytest.raises(SourceError, match="does not answer") as raised:
            source.resolve("https://git.example.com/app.git")
    assert raised.value.temporary


def test_a_web_server_that_forbids_has_refused_the_credentials() -> None:
    with answering(403) as address, pytest.raises(SourceRefused) as raised:
        source.resolve(f"{address}/app.git")
    assert not raised.value.temporary


@pytest.mark.parametrize("digits", ["403", "502", "503"])
def test_digits_of_an_address_are_no_answer_of_its_server(digits: str) -> None:
    with answering(404) as address, pytest.raises(SourceError, match="the git repository"):
        source.resolve(f"{address}/{digits}/app.git")


def test_exactly_the_commit_is_fetched_from_a_server_with_times_and_modes_of_its_own(
    work_tree: Repository, tmp_path: Path
) -> None:
    (work_tree.path / "bin/run").chmod(0o755)
    (work_tree.path / "link").symlink_to("bin/run")
    old = work_tree.commit({"version": "1"}, at=MOMENT + 100)
    work_tree.commit({"version": "2"}, at=MOMENT + 200)
    umask = os.umask(0o077)
    try:
        with served(tmp_path / "git", work_tree) as url:
            found = source.resolve(url, old)
            tree = source.check_out(found, tmp_path / "tree")
    finally:
        os.umask(umask)
    assert (tree / "version").read_text() == "1"
    assert sorted(path.name for path in tree.iterdir()) == ["Dockerfile", "bin", "link", "version"]
    assert stat.S_IMODE((tree / "bin/run").stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / "Dockerfile").stat().st_mode) == 0o644
    assert {path.lstat().st_mtime for path in (tree, *tree.rglob("*"))} == {MOMENT + 100}
    assert (tree / "link").readlink() == Path("bin/run")


def test_a_server_that_gives_no_single_commits_is_fetched_from_whole(
    work_tree: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="soci_pipeline")
    # Over version 2 of the protocol a server gives every commit, whatever it is told.
    (tmp_path / ".gitconfig").write_text("[protocol]\n\tversion = 0\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    old = work_tree.commit({"version": "1"})
    work_tree.commit({"version": "2"})
    with served(tmp_path / "git", work_tree) as url:
        bare = Repository(next((tmp_path / "git").glob("repositories/*.git")))
        bare.git("config", "uploadpack.allowAnySHA1InWant", "false")
        bare.git("config", "uploadpack.allowFilter", "false")
        tree = source.check_out(source.resolve(url, old), tmp_path / "tree")
    assert (tree / "version").read_text() == "1"
    assert "the server does not serve single commits;" in caplog.text


def test_a_missing_dockerfile_is_known_without_fetching_files(work_tree: Repository) -> None:
    url = str(work_tree.path)
    assert source.resolve(url, files=(".", "bin", "Dockerfile")) == source.resolve(url)
    with pytest.raises(SourceError, match="has no docker/Dockerfile") as caught:
        source.resolve(url, files=(".", "docker/Dockerfile"))
    assert "`dockerfile`, which is relative to `context`." in str(caught.value)


def test_ancestors_are_known_from_history_alone(work_tree: Repository) -> None:
    old = work_tree.git("rev-parse", "HEAD")
    new = work_tree.commit({"more": "x"})
    url = str(work_tree.path)
    assert source.is_ancestor(url, old, new) is True
    assert source.is_ancestor(url, new, old) is False
    assert source.is_ancestor(url, old, "c" * 40) is None
    assert source.is_ancestor(url, "not a commit", new) is None


def test_uncommitted_changes_are_named(work_tree: Repository, caplog: pytest.LogCaptureFixture) -> None:
    (work_tree.path / "draft").write_text("x")
    source.resolve(str(work_tree.path))
    assert "uncommitted changes are not published: draft" in caplog.text
    for number in range(10):
        (work_tree.path / f"draft{number}").write_text("x")
    source.resolve(str(work_tree.path))
    assert "draft8 and 1 more" in caplog.text


def test_credentials_reach_git_by_file_and_are_in_no_argument_or_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    # The program does as git does: it asks the helper for the user and the password.
    write_program(
        tmp_path / "bin",
        "git",
        'case "$*" in *"ls-remote --get-url"*) echo https://git.example.com/app; exit ;; esac\n'
        f'{{ echo "argv: $*"; env; echo "user: $($GIT_ASKPASS "Username for \'https://git.example.com\': ")"; '
        f'echo "pass: $($GIT_ASKPASS "Password for \'https://robot@git.example.com\': ")"; }} '
        f">> {seen}\necho 'fatal: Authentication failed' >&2\nexit 128",
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    credentials = GitCredentials(username="robot", password=SecretStr("hunter2"))
    with pytest.raises(SourceError, match="rejected the credentials") as raised:
        source.resolve("https://git.example.com/app", credentials=credentials)
    lines = seen.read_text().splitlines()
    assert "user: robot" in lines
    assert "pass: hunter2" in lines
    assert [line for line in lines if "hunter2" in line] == ["pass: hunter2"]
    assert "hunter2" not in str(raised.value)
    helper = next(line.partition("=")[2] for line in lines if line.startswith("GIT_ASKPASS="))
    assert not Path(helper).exists()


def test_an_ssh_key_is_a_file_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    write_program(
        tmp_path / "bin",
        "git",
        f'key=$(echo "$GIT_SSH_COMMAND" | sed "s/.* -i //"); stat -c %a "$key" > {seen}; cat "$key" >> {seen}; exit 1',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(SourceError):
        source.resolve("ssh://git.example.com/app", credentials=GitCredentials(ssh_key=SecretStr("the key")))
    assert seen.read_text().splitlines() == ["600", "the key"]


def test_a_repository_given_by_the_environment_does_not_lead_git_astray(
    work_tree: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = repository(tmp_path / "other", {"other": "x"})
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    tree = source.check_out(source.resolve(str(work_tree.path)), tmp_path / "tree")
    assert (tree / "Dockerfile").exists()


@pytest.mark.parametrize("change", [{"commit": "main"}, {"url": "ext::sh"}])
def test_a_record_with_a_doubtful_commit_or_address_is_refused(change: dict[str, str]) -> None:
    fields = {"url": "https://git.example.com/a", "ref": "main", "commit": "a" * 40, "commit_time": 1}
    with pytest.raises(ValidationError):
        ResolvedSource.model_validate(fields | change)
