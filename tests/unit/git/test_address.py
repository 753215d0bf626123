"""Addresses and refs: what git could take for an option, or for a command, never reaches it."""

import contextlib

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.address import Origin, check_ref, check_url, origin_of
from soci_pipeline.hosts import is_loopback
from soci_pipeline.webhook.clone_urls import CloneUrl


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
        "https://dev.azure.com/acme/My%20Project/_git/app",
        "https://git.example.com/~jane/app+web,v2.git",
        "ssh://git@[2001:db8::1]:2222/team/app.git",
        "http://localhost:3000/team/app.git",
        "http://[::1]:3000/app",
        "gitserver:team/app.git",
        "/srv/it's mine/app",
    ],
)
def test_an_address_that_git_fetches_from_is_taken(url: str) -> None:
    assert check_url(url) == url


_UNSAFE = [
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
    "https://git.example.com/$(id)",
    "https://git.example.com/`id`",
    "https://git.example.com/'app'",
    'https://git.example.com/"app"',
    "https://git.example.com/app;id",
    "https://git.example.com/app|id",
    "https://git.example.com/app&id",
    "https://git.example.com/<script>",
    "https://git.example.com/${IFS}app",
    "https://git.example.com/%24%28id%29",
    "https://git.example.com/%27app%27",
    "https://git.example.com/app%0Ahost=evil.example",
    "https://git.example.com/a b",
    "https://git.example.com/a\u202eb",
    "https://git.example.com\\@evil.example/app",
    "https://git.example.com/../app",
    "https://git.example.com/%2e%2e/app",
    "https://git.example.com/app?x=1",
    "https://git.example.com/app#x",
    "https://git.example.com:99999/app",
    "git@git.example.com:$(id)",
    "git@git.example.com:team/../app",
    "git@git.example.com:team/'app'",
    "ssh://$(id)@git.example.com/app",
    "http://%6cocalhost/app",
    "http://git.example.com%2f.evil.example/app",
    "http://\uff1127.0.0.1/app",
    "http://[fe80::1%25eth0]/app",
    "javascript:alert(1)",
    "javascript:alert",
    "JavaScript:alert",
    "javascript://git.example.com/%0aalert",
    "data:text/html,x",
    "vbscript:x",
    "https:git.example.com/app",
    "http://169.254.169.254/latest/meta-data",
    "http://2852039166/latest",
    "http://0xa9fea9fe/latest",
    "http://169.254.43518/latest",
    "http://[fe80::1]/app",
    "http://[::ffff:169.254.169.254]/app",
    "http://[64:ff9b::a9fe:a9fe]/app",
    "http://[fd00:ec2::254]/app",
    "http://metadata.google.internal/app",
    "git@169.254.169.254:app",
]


@pytest.mark.parametrize("url", _UNSAFE)
def test_an_address_that_could_mean_something_else_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_url(url)


_REMOTE = [
    "https://git.example.com/team/app.git",
    "http://git.example.com:8080/app",
    "https://dev.azure.com/acme/My%20Project/_git/app",
    "ssh://git@git.example.com:2222/team/app.git",
    "git@git.example.com:team/app.git",
    "git@gitlab:team/app.git",
    "git://git.example.com/app.git",
    "https://10.0.0.5/team/app.git",
    "https://[2001:db8::1]/app",
    "https://localhost.example.com/app",
    "codecommit::eu-west-1://app",
]
_LOOPBACK = [
    "http://localhost/app",
    "http://LOCALHOST:3000/app",
    "http://localhost./app",
    "http://git.localhost/app",
    "http://localhost.localdomain/app",
    "http://ip6-localhost/app",
    "git://127.0.0.1:9418/app",
    "http://127.0.0.1./app",
    "http://127.8.9.10/app",
    "http://127.1/app",
    "http://2130706433/app",
    "http://0x7f.1/app",
    "http://0x7f000001/app",
    "http://0177.0.0.1/app",
    "http://0.0.0.0/app",
    "http://0/app",
    "http://[::1]/app",
    "http://[::]/app",
    "http://[0:0:0:0:0:0:0:1]:80/app",
    "http://[::ffff:127.0.0.1]/app",
    "http://[::ffff:7f00:1]/app",
    "http://[::127.0.0.1]/app",
    "http://[64:ff9b::7f00:1]/app",
    "http://[2002:7f00:1::]/app",
    "ssh://git@localhost/app",
    "git@localhost:app",
    "git@127.0.0.1:app",
]
_LOCAL = [
    "/srv/app",
    "file:///srv/app",
    "gitserver:team/app",
    "codecommit::eu-west-1://admin@app",
    " https://git.example.com/app",
]


@pytest.mark.parametrize("url", [*_REMOTE, *_LOOPBACK])
def test_a_run_may_name_any_remote_and_this_machine(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize("url", _LOOPBACK)
def test_an_event_may_not_name_a_loopback_host_in_any_notation(url: str) -> None:
    host = (origin_of(url) or Origin("", "", 0)).host
    assert is_loopback(host)
    with contextlib.suppress(ValueError):
        assert is_loopback(CloneUrl.parse(url).host)


@pytest.mark.parametrize("url", [*_LOCAL, *_UNSAFE])
def test_an_event_may_never_name_anything_else(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        CloneUrl.parse(url)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Git.Example.com/app", Origin("https", "git.example.com", 443)),
        ("https://git.example.com:8443/app", Origin("https", "git.example.com", 8443)),
        ("http://git.example.com/app", Origin("http", "git.example.com", 80)),
        ("ssh://git@git.example.com/app", Origin("ssh", "git.example.com", 22)),
        ("git@git.example.com:app", Origin("ssh", "git.example.com", 22)),
        ("git://git.example.com/app", Origin("git", "git.example.com", 9418)),
        ("https://[::1]:8443/app", Origin("https", "[::1]", 8443)),
        ("codecommit::eu-west-1://app", Origin("https", "git-codecommit.eu-west-1.amazonaws.com", 443)),
        ("/srv/app", None),
        ("file:///srv/app", None),
    ],
)
def test_the_origin_is_the_server_that_git_connects_to(url: str, origin: Origin | None) -> None:
    assert origin_of(url) == origin


def test_a_refused_address_is_shown_without_a_token_behind_it() -> None:
    for end in ("?private_token=hunter2", "#hunter2"):
        with pytest.raises(InvalidInput, match=r"https://git\.example\.com/a\.git'") as caught:
            check_url(f"https://git.example.com/a.git{end}")
        assert "hunter2" not in str(caught.value)


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
