"""Signing: what cosign is called with, and that no secret is on its command line. The real one is in tests/real."""

import json
import logging
from pathlib import Path

import pytest
from pydantic import SecretStr

from soci_pipeline.errors import InvalidInput, ToolFailed, ToolMissing
from soci_pipeline.oci.digest import Digest
from soci_pipeline.publish.registries import Connection
from soci_pipeline.publish.signature import SigningKey, SigningToken, configured_signer, sign
from soci_pipeline.registry.auth import Credentials, FixedCredentials
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import PublishSettings, Settings
from soci_pipeline.tool_versions import ToolTooOld
from tests.support.cosign import HELP_2_5, HELP_2_6, HELP_3_0, HELP_3_1, fake_cosign

IMAGE = ImageReference.parse(f"registry.example.com/app@{Digest.of(b'image')}")
KEY = SigningKey("cosign.key", SecretStr("hunter2"))
TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYXJrZWQifQ.marked_token"


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


@pytest.mark.parametrize("help_text", [HELP_2_5, HELP_2_6], ids=["2.5", "2.6"])
def test_cosign_2_signs_by_key_without_uploading_to_the_log(
    record: Path, monkeypatch: pytest.MonkeyPatch, help_text: str
) -> None:
    monkeypatch.setenv("COSIGN_HELP", help_text)

    sign(IMAGE, KEY)

    assert f"sign --yes --tlog-upload=false --key cosign.key {IMAGE}" in (record / "argv").read_text()
    assert not (record / "signing-config").exists()


@pytest.mark.parametrize("help_text", [HELP_3_0, HELP_3_1], ids=["3.0", "3.1"])
def test_cosign_3_signs_by_key_with_a_signing_config_and_a_trusted_root_that_name_no_service(
    record: Path, monkeypatch: pytest.MonkeyPatch, help_text: str
) -> None:
    monkeypatch.setenv("COSIGN_HELP", help_text)

    sign(IMAGE, KEY)

    assert "--tlog-upload" not in (record / "argv").read_text()
    media_types = [json.loads((record / name).read_text()) for name in ("signing-config", "trusted-root")]
    assert media_types == [
        {"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"},
        {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"},
    ]
    assert (record / "password.sign").read_text() == "hunter2"


def test_a_cosign_whose_help_names_neither_option_is_never_allowed_to_upload(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSIGN_HELP", "unknown command")
    sign(IMAGE, KEY)
    assert "sign --yes --tlog-upload=false" in (record / "argv").read_text()


@pytest.mark.parametrize("key", ["awskms:///alias/signing", "gcpkms://projects/p", "k8s://ns/name", "env://KEY"])
def test_the_uri_of_a_key_service_reaches_cosign_as_it_is(record: Path, key: str) -> None:
    sign(IMAGE, SigningKey(key))
    assert f"--key {key} {IMAGE}" in (record / "argv").read_text()
    assert f"public-key --key {key} " in (record / "argv").read_text()
    assert (f"verify --insecure-ignore-tlog=true --key {key} " in (record / "argv").read_text()) == ("kms:" in key)


@pytest.mark.parametrize("source", ["file", "variable"])
def test_an_oidc_token_reaches_cosign_by_a_private_file_alone(
    record: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    caplog.set_level(logging.DEBUG, "soci_pipeline")
    settings = PublishSettings(signing_token=True)
    if source == "file":
        (record / "projected").write_text(f"{TOKEN}\n")
        settings = PublishSettings(signing_token=True, signing_token_file=record / "projected")
    else:
        monkeypatch.setenv("SIGSTORE_ID_TOKEN", TOKEN)
    signer = configured_signer(settings)
    assert isinstance(signer, SigningToken)

    assert sign(IMAGE, signer) is True

    assert (record / "identity-token").read_text() == TOKEN
    mode, place = (record / "identity-token.mode").read_text().split()
    assert (mode, Path(place).exists()) == ("600", False)
    assert "--tlog-upload" not in (record / "argv").read_text()
    shown = [(record / "argv").read_text(), (record / "environment").read_text(), caplog.text, repr(signer)]
    assert not any("marked_token" in text for text in shown)


def test_a_token_signs_at_each_publication_and_one_that_is_renewed_in_its_file_counts(record: Path) -> None:
    file = record / "projected"
    settings = PublishSettings(signing_token=True, signing_token_file=file)
    for number in ("1", "2"):
        file.write_text(f"{TOKEN}{number}")
        signer = configured_signer(settings)
        assert signer is not None
        assert sign(IMAGE, signer) is True
        assert (record / "identity-token").read_text() == f"{TOKEN}{number}"


@pytest.mark.parametrize("text", [None, "", "not a token", "a.b", "/etc/passwd", "a.b.c\nd.e.f"])
def test_a_token_that_is_missing_or_is_not_a_jwt_is_named_by_its_source_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.delenv("SIGSTORE_ID_TOKEN", raising=False)
    file = tmp_path / "token"
    if text is not None:
        file.write_text(text)
        monkeypatch.setenv("SIGSTORE_ID_TOKEN", text)
    for settings in (PublishSettings(signing_token=True, signing_token_file=file), PublishSettings(signing_token=True)):
        with pytest.raises(InvalidInput, match="OIDC token for signing") as caught:
            configured_signer(settings)
        assert text is None or len(text) < 3 or text not in str(caught.value)


def test_a_token_that_cosign_prints_does_not_come_into_the_error(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = record / "bin" / "cosign"
    program.write_text('#!/bin/sh\nfor word; do [ -f "$word" ] && cat "$word" >&2; done; exit 1')
    with pytest.raises(ToolFailed, match="cosign ended with exit status 1") as caught:
        sign(IMAGE, SigningToken(SecretStr(TOKEN)))
    assert TOKEN not in str(caught.value)


def test_a_signing_config_goes_with_a_token_and_needs_cosign_3(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = record / "services.json"
    config.write_text('{"services": "of ours"}')
    signer = SigningToken(SecretStr(TOKEN), config)
    with pytest.raises(ToolTooOld, match="--signing-config"):
        sign(IMAGE, signer)
    monkeypatch.setenv("COSIGN_HELP", HELP_3_1)
    sign(IMAGE, signer)
    assert (record / "signing-config").read_text() == '{"services": "of ours"}'


def test_without_a_key_and_a_token_nothing_is_signed_and_both_together_are_rejected() -> None:
    assert configured_signer(PublishSettings()) is None
    assert configured_signer(PublishSettings(signing_key="k")) == SigningKey("k")
    both = {"SOCI_PIPELINE_PUBLISH_SIGNING_KEY": "k", "SOCI_PIPELINE_PUBLISH_SIGNING_TOKEN": "true"}
    with pytest.raises(InvalidInput, match="SIGNING_KEY and SIGNING_TOKEN cannot both be set"):
        Settings.from_environment(both)
