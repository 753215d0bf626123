"""Signing an image in ECR: its short-lived token reaches cosign, and shows nowhere."""

import base64
import json
import logging
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from soci_pipeline.aws.ecr import EcrCredentials
from soci_pipeline.oci.digest import Digest
from soci_pipeline.publish.registries import Connection
from soci_pipeline.publish.signature import SigningKey, sign
from soci_pipeline.registry.reference import ImageReference
from tests.support.aws import REGISTRY, answering
from tests.support.cosign import fake_cosign

IMAGE = ImageReference.parse(f"registry.example.com/app@{Digest.of(b'image')}")
KEY = SigningKey("cosign.key", SecretStr("hunter2"))


def test_the_token_of_ecr_reaches_cosign_by_a_file_alone(
    tmp_path: Path, credentials: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = fake_cosign(tmp_path, monkeypatch)
    caplog.set_level(logging.DEBUG, "soci_pipeline")
    token = base64.b64encode(b"AWS:marked-ecr-41bd").decode()
    held = {"authorizationToken": token, "expiresAt": time.time() + 12 * 3600}
    with answering((200, {"authorizationData": [held]})) as ecr:
        token_of_ecr = EcrCredentials(endpoint_url=ecr.url)
        sign(ImageReference.parse(f"{REGISTRY}/app@{IMAGE.digest}"), KEY, Connection(token_of_ecr))

    assert json.loads((record / "config.json").read_text()) == {"auths": {REGISTRY: {"auth": token}}}
    seen = [(record / "argv").read_text(), (record / "environment").read_text(), caplog.text, repr(token_of_ecr)]
    assert all(seen)
    assert not any(form in text for text in seen for form in ("marked-ecr", token))
