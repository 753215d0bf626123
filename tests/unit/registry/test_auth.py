import base64
import json
import os
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


def test_the_environment_gives_a_login_for_all_or_for_one_registry() -> None:
    names = {"SOCI_PIPELINE_REGISTRY_USERNAME": "u", "SOCI_PIPELINE_REGISTRY_PASSWORD": SECRET}
    assert password(Environment(names).credentials_for("any.example.com")) == SECRET
    limited = Environment(names | {"SOCI_PIPELINE_REGISTRY": "one.example.com"})
    assert limited.credentials_for("one.example.com") is not None
    assert limited.credentials_for("two.example.com") is None
    assert Environment({}).credentials_for("any.example.com") is None
    token = Environment({"SOCI_PIPELINE_REGISTRY_TOKEN": SECRET}).credentials_for("any.example.com")
    assert token is not None
    assert token.identity_token is not None


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
