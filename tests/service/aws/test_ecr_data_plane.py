"""Images through a registry under ECR's name whose password is the token that the emulated control plane gives."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from soci_pipeline.cli import main
from soci_pipeline.errors import CredentialsRefused, ExitCode
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.manifest import parse_image_index
from soci_pipeline.publish import branch
from soci_pipeline.publish.branch import Branch
from soci_pipeline.publish.registries import check_push, connect
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.server import Login, ServerSettings, serving
from soci_pipeline.settings import RegistrySettings, Settings
from tests.support.aws import REGISTRY, emulated_password
from tests.support.ecr_name import EcrStart, named_as_ecr
from tests.support.faults import Fault, FaultPlan
from tests.support.images import AMD64, ARM64, image_layout

IMAGE = ImageReference.parse(f"{REGISTRY}/team/app")


def test_images_are_pushed_joined_and_verified_with_the_token_of_the_role(
    aws: str, ecr_registry: EcrStart, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trusted = ["--ca-file", str(ecr_registry(emulated_password())), "--json"]
    digests = []
    for platform in (AMD64, ARM64):
        plain, indexed = tmp_path / f"{platform.slug}-plain", tmp_path / platform.slug
        image_layout(plain, platform)
        assert main(["convert", str(plain), str(indexed), "--min-layer-size", "0", "--json"]) == 0
        digests.append(json.loads(capsys.readouterr().out)["platforms"][0]["manifest"])
        assert main(["push", str(indexed), IMAGE.name, *trusted]) == 0
        capsys.readouterr()
    assert main(["join", f"{IMAGE.name}:v1", *digests, *trusted]) == 0
    joined = json.loads(capsys.readouterr().out)["index"]
    assert main(["verify", f"{IMAGE.name}:v1", "--all", *trusted]) == 0
    # One of the layers is in both images.
    assert json.loads(capsys.readouterr().out)["checked"]["diff_ids"] == 3

    with connect(IMAGE, Settings(registry=RegistrySettings(ca_file=tmp_path / "certificate.pem"))) as client:
        descriptor, data = client.manifests.get(IMAGE.repository, "v1")
    assert descriptor.digest == joined
    assert {str(each.digest) for each in parse_image_index(data).manifests} >= set(digests)


def test_a_prebuilt_image_that_is_on_ecr_is_read_with_the_token_of_the_role(
    aws: str, ecr_registry: EcrStart, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trusted = ecr_registry(emulated_password())
    made = image_layout(tmp_path / "image", AMD64)
    assert main(["push", str(tmp_path / "image"), f"{IMAGE.name}:v1", "--ca-file", str(trusted)]) == 0
    asked = {"image": "registry.example.com/app", "source": "https://git.example.com/app.git", "builder": "prebuilt"}
    request = PublishRequest.check(asked | {"prebuilt": f"docker://{IMAGE.name}:v1"})
    commit = ResolvedSource(url=request.source, ref="refs/heads/main", commit="a" * 40, commit_time=1)
    settings = Settings(registry=RegistrySettings(ca_file=trusted))
    work = Branch(request.branch(AMD64, commit), tmp_path / "run", settings)

    built = branch.build(work, tmp_path)

    assert branch.import_built(work, built).root().digest == made.root().digest


def test_a_token_that_the_registry_does_not_take_is_refused_with_the_next_step_and_stays_secret(
    aws: str, ecr_registry: EcrStart, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "soci_pipeline")
    authority, password = ecr_registry("another"), emulated_password()
    with (
        connect(IMAGE, Settings(registry=RegistrySettings(ca_file=authority))) as client,
        pytest.raises(CredentialsRefused, match=REGISTRY) as caught,
    ):
        check_push(client, IMAGE.repository)
    assert "permissions of the role" in str(caught.value.advice)

    assert main(["verify", f"{IMAGE.name}:v1", "--ca-file", str(authority), "--verbose"]) == ExitCode.CREDENTIALS
    shown = capsys.readouterr()
    assert "permissions of the role" in shown.err
    encoded = base64.b64encode(f"AWS:{password}".encode()).decode()
    said = shown.out + shown.err + repr(caught.value) + caplog.text
    assert [secret for secret in (password, encoded) if secret in said] == []


@pytest.mark.parametrize(
    ("method", "action", "work", "statement"),
    [
        (
            "GET",
            "pull",
            lambda client: client.manifests.get(IMAGE.repository, "v1"),
            ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        ),
        (
            "POST",
            "push",
            lambda client: check_push(client, IMAGE.repository),
            ["ecr:InitiateLayerUpload", "ecr:PutImage"],
        ),
    ],
)
def test_a_role_that_lacks_a_permission_is_told_the_statement_that_gives_it(
    method: str,
    action: str,
    work: Callable[[RegistryClient], object],
    statement: list[str],
    aws: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker"))
    plan = FaultPlan([Fault(method, "/v2/team/app/", times=9, status=403, code="DENIED")])
    login = ServerSettings(login=Login("AWS", SecretStr(emulated_password())))
    with (
        serving(tmp_path / "registry", settings=login, middleware=plan.middleware) as address,
        named_as_ecr(address, tmp_path, monkeypatch) as authority,
        connect(IMAGE, Settings(registry=RegistrySettings(ca_file=authority))) as client,
    ):
        client.ping()
        with pytest.raises(CredentialsRefused) as caught:
            work(client)
    advice = str(caught.value.advice)
    assert f"lacks the permission to {action} on {IMAGE.repository}" in advice
    assert [name for name in statement if name not in advice] == []
    assert "IAM" in advice
