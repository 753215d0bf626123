"""A login for docker alone: beside what the user has configured, in a private folder that vanishes."""

import json
import os
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from soci_pipeline.publish.docker_login import docker_environment, login_entry
from soci_pipeline.registry.auth import Credentials, DockerConfig, FixedCredentials

LOGIN = FixedCredentials(Credentials("robot", SecretStr("opensesame")))
REGISTRY = "registry.example.com"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "docker"
    (folder / "cli-plugins").mkdir(parents=True)
    auths = {"other.example.com": {"auth": "dTpw"}}
    (folder / "config.json").write_text(json.dumps({"auths": auths, "credsStore": "desktop", "currentContext": "x"}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.delenv("BUILDX_CONFIG", raising=False)
    return folder


def test_docker_gets_the_login_beside_everything_that_is_configured(own: Path) -> None:
    before = (own / "config.json").read_text()
    with docker_environment(REGISTRY, LOGIN) as env:
        folder = Path(env["DOCKER_CONFIG"])
        config = json.loads((folder / "config.json").read_text())
        assert set(config["auths"]) == {"other.example.com", REGISTRY}
        assert config["currentContext"] == "x"
        # Docker reads the entry only where no helper is set for the registry.
        assert DockerConfig(folder / "config.json").credentials_for(REGISTRY) == LOGIN.credentials_for(REGISTRY)
        assert (folder / "cli-plugins").samefile(own / "cli-plugins")
        assert env["BUILDX_CONFIG"] == str(own / "buildx")
        assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o600
        assert "opensesame" not in str(env)
    assert not folder.exists()
    assert (own / "config.json").read_text() == before


def test_without_a_login_docker_keeps_its_own_configuration(own: Path) -> None:
    with docker_environment(REGISTRY, None) as env:
        assert env == dict(os.environ)


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_a_configuration_that_is_missing_or_broken_is_as_good_as_none(own: Path, content: str | None) -> None:
    (own / "config.json").unlink() if content is None else (own / "config.json").write_text(content)
    with docker_environment(REGISTRY, LOGIN) as env:
        config = json.loads((Path(env["DOCKER_CONFIG"]) / "config.json").read_text())
    assert list(config["auths"]) == [REGISTRY]


@pytest.mark.parametrize(
    ("found", "entry"),
    [
        (Credentials("robot", SecretStr("pw")), {"auth": "cm9ib3Q6cHc="}),
        (Credentials(identity_token=SecretStr("i")), {"identitytoken": "i"}),
        (Credentials(registry_token=SecretStr("r")), {"registrytoken": "r"}),
        (Credentials(), None),
    ],
)
def test_a_login_of_each_kind_has_its_field_in_docker_s_configuration(
    found: Credentials, entry: dict[str, str] | None
) -> None:
    expected = None if entry is None else (REGISTRY, entry)
    assert login_entry(REGISTRY, FixedCredentials(found)) == expected
