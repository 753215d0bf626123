"""AWS credentials from a block of prefect-aws: for ECR by the machine's settings, for CodeCommit by the parameters."""

import base64
import contextlib
import json
import os
from pathlib import Path
from uuid import uuid4

import pytest
from prefect import flow
from prefect.blocks.system import Secret
from prefect_aws import AwsCredentials
from pydantic import SecretStr

from soci_pipeline.errors import CredentialsRefused, InvalidInput
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.media_types import OCI_INDEX
from soci_pipeline.publish.branch import Branch, Built
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.publish.source import Source
from soci_pipeline.publish.tag_names import TagNames
from soci_pipeline.publish.target import Target
from soci_pipeline.registry.push import push_graph
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.server import Login, ServerSettings, serving
from soci_pipeline.settings import EcrSettings, PublishSettings, RegistrySettings, Settings
from tasks.aws import connected, ecr_session
from tasks.build import build
from tasks.provenance import attest
from tasks.secrets import git_credentials
from tests.support.aws import REGISTRY, answering, authorization
from tests.support.ecr_name import named_as_ecr
from tests.support.images import AMD64, image_layout
from tests.support.registries import registry

IMAGE = ImageReference.parse(f"{REGISTRY}/team/app")
COMMIT = ResolvedSource(url="https://git.example.com/app.git", ref="refs/heads/main", commit="a" * 40, commit_time=1)
COSIGN = """#!/bin/sh
[ "$1" != verify ] || exit 10
cp "$DOCKER_CONFIG/config.json" "$RECORD/config.json"
"""


@pytest.fixture
def block() -> str:
    name = f"made-{uuid4().hex[:8]}"
    keys = AwsCredentials(aws_access_key_id="AKIAFROMTHEBLOCK0000", aws_secret_access_key=SecretStr("s"))
    keys.save(name)
    return f"aws-credentials/{name}"


def _settings(place: str | None) -> Settings:
    return Settings(ecr=EcrSettings(credentials_block=place))


def test_the_block_that_the_settings_name_signs_calls_to_ecr(block: str) -> None:
    session = ecr_session(_settings(block))
    assert session is not None
    assert session.get_credentials().access_key == "AKIAFROMTHEBLOCK0000"  # type: ignore[union-attr]


def test_without_one_boto3_looks_for_itself() -> None:
    assert ecr_session(_settings(None)) is None


def test_a_block_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match="aws-credentials/nowhere"):
        ecr_session(_settings("aws-credentials/nowhere"))


def test_a_block_of_another_type_is_refused() -> None:
    name = f"made-{uuid4().hex[:8]}"
    Secret(value="s").save(name)
    with pytest.raises(InvalidInput, match="does not contain AWS credentials"):
        ecr_session(_settings(f"secret/{name}"))


def test_a_block_with_a_profile_that_is_not_there_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    name = f"made-{uuid4().hex[:8]}"
    AwsCredentials(profile_name="nobody").save(name)
    with pytest.raises(CredentialsRefused, match="nobody"):
        ecr_session(_settings(f"aws-credentials/{name}"))


def test_the_same_kind_of_block_opens_a_codecommit_source(block: str) -> None:
    found = git_credentials(block)
    assert found is not None
    assert found.aws is not None
    assert found.password is None
    assert "AKIA" not in repr(found)


def test_the_block_that_the_settings_name_signs_images_too(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "cosign"
    program.parent.mkdir()
    program.write_text(COSIGN)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path))
    _no_other_credentials(monkeypatch)
    index = Descriptor(media_type=OCI_INDEX, digest=Digest.of(b"index"), size=5)
    settings = _settings(block).model_copy(update={"publish": PublishSettings(signing_key="cosign.key")})

    with answering(authorization("from-the-block")) as ecr, registry(tmp_path / "registry") as client:
        monkeypatch.setenv("AWS_ENDPOINT_URL", ecr.url)
        target = Target(IMAGE, client, TagNames(("v1",)), lambda: contextlib.nullcontext(lambda _older, _newer: None))
        attest.fn(target, Source(COMMIT), index, (), settings, parameters={})

    login = base64.b64encode(b"AWS:from-the-block").decode()
    assert json.loads((tmp_path / "config.json").read_text()) == {"auths": {REGISTRY: {"auth": login}}}


def test_the_block_that_the_settings_name_reads_a_prebuilt_image(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_other_credentials(monkeypatch)
    made = image_layout(tmp_path / "image", AMD64)
    login = ServerSettings(login=Login("AWS", SecretStr("from-the-block")))
    with (
        answering(authorization("from-the-block")) as ecr,
        serving(tmp_path / "registry", settings=login) as address,
        named_as_ecr(address, tmp_path, monkeypatch) as trusted,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL", ecr.url)
        settings = _settings(block).model_copy(update={"registry": RegistrySettings(ca_file=trusted)})
        with connected(IMAGE, settings) as client:
            push_graph(made, made.root(), client, IMAGE.repository, tag="v1")
        asked = {"image": "registry.example.com/app", "source": "https://git.example.com/app.git"}
        request = PublishRequest.check(asked | {"builder": "prebuilt", "prebuilt": f"docker://{IMAGE.name}:v1"})
        (tmp_path / "run").mkdir()
        work = Branch(request.branch(AMD64, COMMIT), tmp_path / "run", settings)

        @flow(name="one-build")
        def one_build() -> Built:
            return build(work, tmp_path)

        built = one_build()
    assert Layout.open(built.path).root().digest == made.root().digest


def _no_other_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else on this machine could ask for a token."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
