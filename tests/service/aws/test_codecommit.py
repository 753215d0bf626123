"""CodeCommit as a source: its addresses, a signature that a second reckoning confirms, and git signing in with it."""

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest

from soci_pipeline.aws.codecommit import CodeCommitSource
from soci_pipeline.errors import CredentialsRefused, InvalidInput, SourceError
from soci_pipeline.git import source
from soci_pipeline.git.sign_in import GitCredentials
from tests.support.git_http import redirecting, requiring_login, served_over_http
from tests.support.git_repositories import Repository, repository

KEY, SECRET = "AKIAEXAMPLEEXAMPLE00", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
HOST = "git-codecommit.eu-west-1.amazonaws.com"


def _expected(path: str, stamp: str, secret: str = SECRET) -> str:
    """The password, reckoned from the description of Signature Version 4 alone."""
    canonical = hashlib.sha256(f"GIT\n{path}\n\nhost:{HOST}\n\nhost\n".encode()).hexdigest()
    day, text = stamp[:8], f"AWS4-HMAC-SHA256\n{stamp}\n{stamp[:8]}/eu-west-1/codecommit/aws4_request\n{canonical}"
    key = f"AWS4{secret}".encode()
    for part in (day, "eu-west-1", "codecommit", "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"{stamp}Z{key.hex()}"


@dataclass
class CodeCommit:
    """A server that takes a user and a signature of now; ``answers`` of past sign-ins are kept."""

    users: list[str] = field(default_factory=list)
    allowed: bool = True

    def check(self, path: str, user: str, password: str) -> bool:
        self.users.append(user)
        stamp, _, _ = password.partition("Z")
        age = datetime.now(UTC) - datetime.strptime(stamp, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        signed = "/".join(path.split("/")[:4])
        return self.allowed and age.total_seconds() < 900 and hmac.compare_digest(password, _expected(signed, stamp))


@pytest.fixture
def app(tmp_path: Path) -> Repository:
    made = repository(tmp_path / "app", {"Dockerfile": "FROM scratch\n"})
    made.git("clone", "--quiet", "--bare", ".", str(tmp_path / "root/v1/repos/shop"))
    return made


@pytest.fixture
def codecommit(app: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CodeCommit]:
    """The service at its own name, which git is told to look for on loopback."""
    service = CodeCommit()
    with served_over_http(tmp_path / "root", service.check) as address:
        home = tmp_path / "home"
        home.mkdir()
        (home / ".gitconfig").write_text(f'[url "{address}/"]\n\tinsteadOf = https://{HOST}/\n')
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        yield service


@pytest.mark.parametrize(
    ("address", "url", "region", "profile"),
    [
        ("codecommit::eu-west-1://shop", f"https://{HOST}/v1/repos/shop", "eu-west-1", None),
        ("codecommit::eu-west-1://team@shop", f"https://{HOST}/v1/repos/shop", "eu-west-1", "team"),
        (
            "codecommit::cn-north-1://shop",
            "https://git-codecommit.cn-north-1.amazonaws.com.cn/v1/repos/shop",
            "cn-north-1",
            None,
        ),
        (f"https://{HOST}/v1/repos/shop", f"https://{HOST}/v1/repos/shop", "eu-west-1", None),
    ],
)
def test_both_ways_to_write_a_repository_are_read(address: str, url: str, region: str, profile: str | None) -> None:
    assert CodeCommitSource.parse(address) == CodeCommitSource(url, region, profile)


@pytest.mark.parametrize(
    "address",
    [
        "https://git.example.com/v1/repos/shop",
        f"https://{HOST}.example.com/v1/repos/shop",
        f"https://{HOST}/v1/repos/shop/../../x",
        f"https://user@{HOST}/v1/repos/shop",
        "codecommit::eu-west-1://shop;id",
        "codecommit::eu-west-1://shop\n",
        "/srv/app",
    ],
)
def test_other_addresses_are_left_to_git(address: str) -> None:
    assert CodeCommitSource.parse(address) is None


def test_an_address_without_a_region_is_refused() -> None:
    with pytest.raises(InvalidInput, match="region") as caught:
        CodeCommitSource.parse("codecommit://shop")
    assert "codecommit::<region>://shop" in str(caught.value.advice)


def test_the_password_is_the_signature_that_the_description_gives() -> None:
    place = CodeCommitSource.parse("codecommit::eu-west-1://shop")
    assert place is not None
    keys = boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=SECRET, aws_session_token="token")
    moment = datetime(2026, 11, 24, 3, 33, 41, tzinfo=UTC)
    user, password = place.sign_in(keys, now=moment)
    assert user == f"{KEY}%token"
    assert password.get_secret_value() == _expected("/v1/repos/shop", "20261124T033341")
    assert password.get_secret_value() not in repr(password)


@pytest.mark.parametrize("url", ["codecommit::eu-west-1://shop", f"https://{HOST}/v1/repos/shop"])
def test_git_signs_in_with_the_keys_of_the_machine(
    codecommit: CodeCommit, app: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    found = source.resolve(url, "main", files=("Dockerfile",))
    assert (found.url, found.commit) == (url, app.git("rev-parse", "HEAD"))
    tree = source.check_out(found, tmp_path / "tree")
    assert (tree / "Dockerfile").read_text() == "FROM scratch\n"
    assert source.is_ancestor(url, found.commit, found.commit)
    assert set(codecommit.users) == {KEY}


def test_git_signs_in_with_a_session_that_is_handed_in(codecommit: CodeCommit) -> None:
    chosen = boto3.Session(aws_access_key_id="AKIACHOSENCHOSEN0000", aws_secret_access_key=SECRET)
    source.resolve("codecommit::eu-west-1://shop", credentials=GitCredentials(aws=chosen))
    assert set(codecommit.users) == {"AKIACHOSENCHOSEN0000"}


def test_a_role_that_may_not_pull_is_told_the_action_and_no_secret(
    codecommit: CodeCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    codecommit.allowed = False
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(SourceError, match="rejected the credentials") as caught:
        source.resolve("codecommit::eu-west-1://shop")
    assert "codecommit:GitPull" in str(caught.value.advice)
    assert SECRET not in str(caught.value)


def test_no_argument_and_no_variable_of_git_holds_the_signature(
    codecommit: CodeCommit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    fake = tmp_path / "bin"
    fake.mkdir()
    script = f'#!/bin/sh\n{{ echo "$@"; env; }} >> {seen}\nPATH="${{PATH#*:}}" exec git "$@"\n'
    (fake / "git").write_text(script)
    (fake / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:{Path('/usr/bin')}:{Path('/bin')}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    source.resolve("codecommit::eu-west-1://shop")
    written = seen.read_text()
    assert "ls-remote" in written
    today = datetime.now(UTC).strftime("%Y%m%dT")
    assert today not in written


def test_a_redirect_to_another_server_does_not_receive_the_signature(
    codecommit: CodeCommit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    logins: list[str] = []
    with requiring_login(logins) as other, redirecting(other) as address:
        (tmp_path / "home/.gitconfig").write_text(f'[url "{address}/"]\n\tinsteadOf = https://{HOST}/\n')
        with pytest.raises(SourceError, match="requires a login, but the credentials are only for"):
            source.resolve("codecommit::eu-west-1://shop")
    assert logins == []


def test_without_aws_credentials_nothing_is_started(codecommit: CodeCommit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(CredentialsRefused, match="codecommit:GitPull"):
        source.resolve("codecommit::eu-west-1://shop")
    assert codecommit.users == []
