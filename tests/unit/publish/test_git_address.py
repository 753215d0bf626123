"""Addresses and refs: what git could take for an option, or for a command, never reaches it."""

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.publish.git_address import check_ref, check_url


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.com/team/app.git",
        "http://127.0.0.1:8080/app",
        "ssh://git@git.example.com:2222/team/app.git",
        "git@git.example.com:team/app.git",
        "git://127.0.0.1:9418/app.git",
        "file:///srv/app.git",
        "/srv/app",
        "codecommit::eu-west-1://app",
    ],
)
def test_an_address_that_git_fetches_from_is_taken(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=x",
        "ext::sh -c touch% /tmp/x",
        "fd::7",
        "https://user:secret@git.example.com/app",
        "https://token@git.example.com/app",
        "ssh://-oProxyCommand=x/app",
        "ssh://git.example.com",
        "ssh://-l@git.example.com/app",
        "https://git.example.com/app\nhttps://other",
        "relative/path",
        "file://host/srv/app",
        "git@-oProxyCommand=x:app",
    ],
)
def test_an_address_that_could_mean_something_else_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_url(url)


def test_a_refused_address_with_credentials_is_not_repeated() -> None:
    with pytest.raises(InvalidInput) as raised:
        check_url("https://user:hunter2@git.example.com/app")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("ref", ["main", "feature/login", "v1.2.0", "refs/tags/v1", "a" * 40, "user@host"])
def test_a_ref_that_git_knows_is_taken(ref: str) -> None:
    assert check_ref(ref) == ref


@pytest.mark.parametrize(
    "ref", ["", "-x", "--upload-pack=x", "a b", "a..b", "a~1", "a^", "a:b", "x@{1}", "a\nb", "/a", "a/", "a.lock", "@"]
)
def test_a_ref_that_could_be_an_option_or_an_expression_is_refused(ref: str) -> None:
    with pytest.raises(InvalidInput):
        check_ref(ref)
