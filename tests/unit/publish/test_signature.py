"""Signing: what cosign is called with, and that no secret is on its command line. The real one is in tests/real."""

import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from soci_pipeline.errors import InvalidInput, ToolFailed, ToolMissing
from soci_pipeline.oci.digest import Digest
from soci_pipeline.publish.registries import Connection
from soci_pipeline.publish.signature import SigningKey, sign
from soci_pipeline.registry.auth import Credentials, FixedCredentials
from soci_pipeline.registry.reference import ImageReference
from tests.support.cosign import fake_cosign

IMAGE = ImageReference.parse(f"registry.example.com/app@{Digest.of(b'image')}")
KEY = SigningKey("cosign.key", SecretStr("hunter2"))


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fake_cosign(tmp_path, monkeypatch)


def test_an_index_is_signed_once_by_its_digest(record: Path) -> None:
    assert sign(IMAGE, KEY) is True
    assert sign(IMAGE, KEY) is False

    calls = (record / "argv").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["public-key", "verify", "sign", "public-key", "verify"]
    assert calls[2] == f"sign --yes --tlog-upload=false --key cosign.key {IMAGE}"


def test_the_password_and_the_login_are_not_on_the_command_line(record: Path) -> None:
    credentials = FixedCredentials(Credentials("robot", SecretStr("letmein")))

    sign(IMAGE, KEY, Connection(credentials=credentials, plain_http=True, ca_file=Path("/ca.pem")))

    assert (record / "password.sign").read_text() == "hunter2"
    assert (record / "password.public-key").read_text() == "hunter2"
    assert "hunter2" not in (record / "environment").read_text()
    assert list(json.loads((record / "config.json").read_text())["auths"]) == ["registry.example.com"]
    assert (record / "mode").read_text() == "600\n"
    argv = (record / "argv").read_text()
    assert "--allow-http-registry --allow-insecure-registry --registry-cacert /ca.pem" in argv
    assert "hunter2" not in argv
    assert "letmein" not in argv


def test_a_failure_has_cosigns_last_words_and_no_secret(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL", "3")

    with pytest.raises(ToolFailed, match="cosign ended with exit status 3") as caught:
        sign(IMAGE, KEY)
    assert "hunter2" not in str(caught.value)


def test_a_tag_cannot_be_signed_and_a_missing_cosign_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="has no digest"):
        sign(ImageReference.parse("registry.example.com/app:v1"), KEY)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="cosign"):
        sign(IMAGE, KEY)


def test_without_a_password_given_the_one_of_the_environment_counts(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(IMAGE, SigningKey("cosign.key"))
    assert (record / "password.sign").read_text() == ""
    monkeypatch.setenv("COSIGN_PASSWORD", "from outside")

    sign(IMAGE, SigningKey("cosign.key"))

    assert (record / "password.public-key").read_text() == "from outside"
    assert "from outside" not in (record / "environment").read_text()
