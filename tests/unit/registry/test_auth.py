import base64
import json
import os
import traceback
from pathlib import Path

import pytest
from pydantic import SecretStr

from soci_pipeline.errors import CredentialsRefused, InvalidInput, ToolMissing
from soci_pipeline.registry.auth import CredentialChain, Credentials, DockerConfig, Environment, FixedCredentials

SECRET = "s3cret-marker"
HELPER = """#!/bin/sh
echo "$0 $*" >> "{log}"
env >> "{log}"
read server
case "$server" in
  known.example.com) printf '{{"ServerURL":"%s","Username":"bot","Secret":"{secret}"}}' "$server";;
  token.example.com) printf '{{"ServerURL":"%s","Username":"<token>","Secret":"{secret}"}}' "$server";;
  broken.example.com) printf 'what?';;
  locked.example.com) echo "{secret} is locked"; exit 1;;
  *) echo "credentials not found in native keychain"; exit 1;;
esac
"""


def config(folder: Path, **fields: object) -> DockerConfig:
    path = folder / "config.json"
    path.write_text(json.dumps(fields))
    return DockerConfig(path)


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper named `fake` that writes down how it is called."""
    log = tmp_path / "helper.log"
    program = tmp_path / "bin" / "docker-credential-fake"
    program.parent.mkdir()
    program.write_text(HELPER.format(log=log, secret=SECRET))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return log


def password(credentials: Credentials | None) -> str | None:
    assert credentials is not None
    return None if credentials.password is None else credentials.password.get_secret_value()


def test_an_auth_entry_is_decoded(tmp_path: Path) -> None:
    encoded = base64.b64encode(f"bot:{SECRET}:with:colons".encode()).decode()
    found = config(tmp_path, auths={"r.example.com": {"auth": encoded}}).credentials_for("r.example.com")
    assert found is not None
    assert (found.username, password(found)) == ("bot", f"{SECRET}:with:colons")
    assert SECRET not in repr(found)


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io"])
def test_docker_hub_is_found_under_each_of_its_names(tmp_path: Path, key: str) -> None:
    encoded = base64.b64encode(b"bot:x").decode()
    assert config(tmp_path, auths={key: {"auth": encoded}}).credentials_for("docker.io") is not None


def test_an_entry_may_be_written_as_an_address(tmp_path: Path) -> None:
    encoded = base64.b64encode(b"bot:x").decode()
    docker = config(tmp_path, auths={"https://r.example.com:8443/v2/": {"auth": encoded}})
    assert docker.credentials_for("r.example.com:8443") is not None
    assert docker.credentials_for("r.example.com") is None


def test_tokens_of_an_entry_are_kept_apart_from_passwords(tmp_path: Path) -> None:
    docker = config(tmp_path, auths={"a": {"identitytoken": SECRET}, "b": {"registrytoken": SECRET}})
    identity, registry = docker.credentials_for("a"), docker.credentials_for("b")
    assert identity is not None
    assert identity.identity_token == SecretStr(SECRET)
    assert registry is not None
    assert registry.registry_token == SecretStr(SECRET)
    assert identity.basic() is None


def test_a_missing_file_means_no_credentials(tmp_path: Path) -> None:
    assert DockerConfig(tmp_path / "none.json").credentials_for("r.example.com") is None


def test_the_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config(tmp_path, auths={"r.example.com": {"username": "bot", "password": SECRET}})
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert password(DockerConfig().credentials_for("r.example.com")) == SECRET


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"r.example.com": {"auth": "%%%"}}}'])
def test_a_broken_file_is_named_without_its_contents(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=r"config\.json") as caught:
        DockerConfig(path).credentials_for("r.example.com")
    assert "%%%" not in str(caught.value)


def test_a_helper_for_one_registry_goes_before_the_store_and_the_entries(tmp_path: Path, helper: Path) -> None:
    docker = config(
        tmp_path,
        credHelpers={"known.example.com": "fake"},
        credsStore="missing",
        auths={"known.example.com": {"username": "other", "password": "other"}},
    )
    assert password(docker.credentials_for("known.example.com")) == SECRET


def test_a_secret_comes_from_a_helpers_standard_output_alone(tmp_path: Path, helper: Path) -> None:
    found = config(tmp_path, credsStore="fake").credentials_for("known.example.com")
    assert (password(found), SECRET in helper.read_text()) == (SECRET, False)
    assert "docker-credential-fake get" in helper.read_text()


def test_a_helpers_token_user_means_an_identity_token(tmp_path: Path, helper: Path) -> None:
    found = config(tmp_path, credsStore="fake").credentials_for("token.example.com")
    assert found is not None
    assert found.identity_token == SecretStr(SECRET)


def test_a_store_without_an_entry_leaves_the_word_to_the_file(tmp_path: Path, helper: Path) -> None:
    docker = config(tmp_path, credsStore="fake", auths={"else.example.com": {"username": "u", "password": "p"}})
    assert password(docker.credentials_for("else.example.com")) == "p"
    assert docker.credentials_for("none.example.com") is None


@pytest.mark.parametrize("registry", ["broken.example.com", "locked.example.com"])
def test_a_failing_helper_is_named_without_what_it_printed(tmp_path: Path, helper: Path, registry: str) -> None:
    with pytest.raises(CredentialsRefused, match="docker-credential-fake") as caught:
        config(tmp_path, credsStore="fake").credentials_for(registry)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_helper_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolMissing, match="docker-credential-nowhere"):
        config(tmp_path, credsStore="nowhere").credentials_for("r.example.com")


def test_a_helpers_name_cannot_be_a_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        config(tmp_path, credsStore="../../bin/sh").credentials_for("r.example.com")


LOGINS = [
    {"SOCI_PIPELINE_REGISTRY_USERNAME": "u", "SOCI_PIPELINE_REGISTRY_PASSWORD": SECRET},
    {"SOCI_PIPELINE_REGISTRY_TOKEN": SECRET},
]


@pytest.mark.parametrize("login", LOGINS, ids=["password", "token"])
def test_the_environment_gives_a_login_for_one_registry_alone(login: dict[str, str]) -> None:
    environment = Environment(login | {"SOCI_PIPELINE_REGISTRY": "One.example.com"})
    found = environment.credentials_for("one.example.com")
    assert found is not None
    assert SECRET in {secret and secret.get_secret_value() for secret in (found.password, found.identity_token)}
    for other in ("two.example.com", "one.example.com:5000", "one.example.com.evil.example", "docker.io"):
        assert environment.credentials_for(other) is None
    assert Environment({}).credentials_for("any.example.com") is None
    assert Environment({"SOCI_PIPELINE_REGISTRY": "one.example.com"}).credentials_for("one.example.com") is None


@pytest.mark.parametrize("hub", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_a_login_of_the_environment_names_docker_hub_by_any_of_its_names(hub: str) -> None:
    environment = Environment(LOGINS[0] | {"SOCI_PIPELINE_REGISTRY": hub})
    assert password(environment.credentials_for("docker.io")) == SECRET
    assert environment.credentials_for("docker.io.example.com") is None


@pytest.mark.parametrize("login", LOGINS, ids=["password", "token"])
@pytest.mark.parametrize(
    "registry",
    [None, "", "https://one.example.com", "one.example.com/", "one.example.com/team", "u:pw@one.example.com"],
)
def test_a_login_of_the_environment_that_is_not_bound_to_a_registry_goes_to_none(
    login: dict[str, str], registry: str | None
) -> None:
    bound = {} if registry is None else {"SOCI_PIPELINE_REGISTRY": registry}
    with pytest.raises(CredentialsRefused, match="SOCI_PIPELINE_REGISTRY is not") as caught:
        Environment(login | bound).credentials_for("one.example.com")
    assert "Set SOCI_PIPELINE_REGISTRY to the registry that this login is for" in str(caught.value.advice)
    assert SECRET not in str(caught.value)
    assert "u:pw" not in str(caught.value)


@pytest.mark.parametrize("last", ["host", "part"])
def test_an_entry_for_a_part_of_a_registry_is_not_sent_to_the_whole(tmp_path: Path, last: str) -> None:
    entries = {
        "r.example.com": {"username": "right", "password": SECRET},
        "r.example.com/team-b": {"username": "wrong", "password": "x"},
    }
    ordered = entries if last == "part" else dict(reversed(entries.items()))
    assert password(config(tmp_path, auths=ordered).credentials_for("r.example.com")) == SECRET
    part = {"r.example.com/team-b": {"username": "wrong", "password": "x"}}
    assert config(tmp_path, auths=part).credentials_for("r.example.com") is None


def test_the_three_entries_of_a_browser_login_are_kept_apart(tmp_path: Path) -> None:
    hub = "https://index.docker.io/v1/"
    entries = {
        f"{hub}access-token": {"username": "wrong", "password": "x"},
        hub: {"username": "right", "password": SECRET},
        f"{hub}refresh-token": {"username": "wrong", "password": "x"},
    }
    assert password(config(tmp_path, auths=entries).credentials_for("docker.io")) == SECRET


def test_credentials_that_no_request_can_carry_are_refused_without_being_shown() -> None:
    with pytest.raises(CredentialsRefused, match="not UTF-8") as caught:
        Credentials("u", SecretStr(f"{SECRET}\udce9"))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(("there", "missing"), [("USERNAME", "PASSWORD"), ("PASSWORD", "USERNAME")])
def test_half_a_login_in_the_environment_is_refused_and_the_missing_variable_named(there: str, missing: str) -> None:
    with pytest.raises(CredentialsRefused) as caught:
        Environment({f"SOCI_PIPELINE_REGISTRY_{there}": SECRET}).credentials_for("any.example.com")
    assert caught.value.reason.endswith(f"SOCI_PIPELINE_REGISTRY_{missing} is not")
    assert f"Set SOCI_PIPELINE_REGISTRY_{missing} as well" in str(caught.value.advice)
    assert SECRET not in str(caught.value)


def test_the_first_provider_that_knows_answers() -> None:
    first = FixedCredentials(Credentials("one"), registry="a")
    chain = CredentialChain(first, FixedCredentials(Credentials("two")))
    assert chain.credentials_for("a") == Credentials("one")
    assert chain.credentials_for("b") == Credentials("two")
