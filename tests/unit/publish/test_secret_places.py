"""Secrets of a publication from this machine: files and variables of its user, which nobody else may name."""

from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.publish.request import BranchRequest, LocalPublishRequest, PublishRequest
from soci_pipeline.publish.secret_places import credentials_from, is_place_of_this_machine, read_here, secret_files
from tests.support.images import AMD64

GIVEN: dict[str, Any] = {"image": "registry.example.com/team/app", "source": "https://git.example.com/app.git"}
PLACES: dict[str, Any] = {"build_secrets": {"npm": "file:~/.npm-token"}, "source_credentials": "env:GIT_TOKEN"}
COMMIT = ResolvedSource(url=GIVEN["source"], ref="refs/heads/main", commit="0" * 40, commit_time=1)


def test_a_file_and_a_variable_are_read_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_bytes(b"first\r\n\xff")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NPM_TOKEN", "second\n")
    with secret_files({"a": "file:~/token", "b": "env:NPM_TOKEN"}, tmp_path, read_here) as files:
        assert files["a"].read_bytes() == b"first\r\n\xff"
        assert files["b"].read_bytes() == b"second\n"
        assert files["a"].stat().st_mode & 0o777 == 0o600
    assert not files["a"].exists()


def test_a_token_in_a_file_does_not_include_the_end_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2\n")
    credentials = credentials_from(f"file:{tmp_path / 'token'}", read_here)
    assert credentials.password is not None
    assert credentials.password.get_secret_value() == "hunter2"


def test_a_private_key_in_a_variable_keeps_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n"
    monkeypatch.setenv("DEPLOY_KEY", key)
    credentials = credentials_from("env:DEPLOY_KEY", read_here)
    assert credentials.ssh_key is not None
    assert credentials.ssh_key.get_secret_value() == key


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file:/nowhere/token", "file:/nowhere/token: No such file or directory"),
        ("file:~nobody-of-this-name/token", "No such file or directory"),
        ("file:/proc", "Is a directory"),
        ("file:/dev/null", "the file is empty"),
        ("file:/dev/zero", "is larger than 500 KiB"),
        ("env:NOT_SET_ANYWHERE", "env:NOT_SET_ANYWHERE: the variable is not set"),
        ("secret/npm-token", "secret/npm-token is a Prefect block"),
    ],
)
def test_a_place_that_holds_nothing_is_named_with_the_reason(place: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as error:
        read_here(place)
    assert error.value.advice


@pytest.mark.parametrize("place", ["file:", "env:", "env:A B", "env:1A", "env:A=b", "file:a\nb", "token", "FILE:a"])
def test_other_texts_are_no_places_of_this_machine(place: str) -> None:
    assert not is_place_of_this_machine(place)


@pytest.mark.parametrize("name", PLACES)
def test_parameters_that_come_from_elsewhere_cannot_name_files_or_variables(name: str) -> None:
    with pytest.raises(InvalidInput, match="must name a Prefect block"):
        PublishRequest.check(GIVEN | {name: PLACES[name]})
    with pytest.raises(ValueError, match="must name a Prefect block"):
        BranchRequest(image="registry.example.com/a", platform=AMD64, source=COMMIT, **{name: PLACES[name]})


def test_the_branches_of_a_publication_from_this_machine_have_its_places() -> None:
    request = LocalPublishRequest.check(GIVEN | PLACES)
    branch = request.branch(AMD64, COMMIT)
    assert (branch.build_secrets, branch.source_credentials) == (PLACES["build_secrets"], PLACES["source_credentials"])


def test_the_provenance_statement_does_not_name_the_places() -> None:
    request = LocalPublishRequest.check(GIVEN | PLACES)
    assert "GIT_TOKEN" not in str(request.statement_parameters())
    assert "npm" not in str(request.statement_parameters())


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({"username": "robot", "password": "pw"}, ("robot", "pw", None)),
        ('{"token": "t"}', ("git", "t", None)),
        (b'{"ssh_key": "k"}', ("git", None, "k")),
        ("{not JSON", ("git", "{not JSON", None)),
    ],
)
def test_credentials_are_read_from_an_object_or_from_text(held: Any, expected: tuple[str | None, ...]) -> None:
    found = credentials_from("secret/x", lambda _: held)
    shown = [None if each is None else each.get_secret_value() for each in (found.password, found.ssh_key)]
    assert (found.username, *shown) == expected


@pytest.mark.parametrize(
    ("held", "said"), [({"username": "robot"}, "must contain token, password or ssh_key"), (b"\xff", "not a string")]
)
def test_credentials_without_a_secret_are_rejected_without_their_content(held: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        credentials_from("secret/x", lambda _: held)
    assert "robot" not in str(caught.value)
