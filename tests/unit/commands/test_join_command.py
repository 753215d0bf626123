"""`soci-pipeline join` from the command line to the registry."""

import json
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.join import join
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.index.records import PlatformImage
from tests.support.branches import branch_v2
from tests.support.images import AMD64, ARM64
from tests.support.published import REPOSITORY, flip, upload


@pytest.fixture
def images(client: RegistryClient, layout: Layout) -> list[PlatformImage]:
    made = [branch_v2(layout, platform) for platform in (ARM64, AMD64)]
    for image in made:
        assert image.soci_index is not None
        upload(client, layout, image.manifest, image.soci_index)
    return made


def test_joining_digests_puts_one_index_and_then_the_tag(
    client: RegistryClient, layout: Layout, images: list[PlatformImage], capsys: pytest.CaptureFixture[str]
) -> None:
    digests = [str(image.manifest.digest) for image in images]
    expected = join(images, annotations={"a": "b=c"}, read=layout.read).descriptor
    command = ["join", f"{client.registry}/{REPOSITORY}:v1", *digests, "--annotation", "a=b=c", "--json"]

    assert main([*command, "--platform", "linux/amd64", "--platform", "linux/arm64/v8"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(command) == 0
    second = json.loads(capsys.readouterr().out)

    assert first["index"] == expected.digest
    assert [each["platform"] for each in first["platforms"]] == ["linux/amd64", "linux/arm64"]
    assert all(each["soci_index"] for each in first["platforms"])
    assert (first["bytes_uploaded"], first["bytes_skipped"]) == (expected.size, 0)
    assert (second["bytes_uploaded"], second["bytes_skipped"]) == (0, expected.size)
    assert client.manifests.head(REPOSITORY, "v1") == expected


def test_a_platform_that_the_tag_loses_is_named(
    client: RegistryClient,
    images: list[PlatformImage],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arm, amd = (str(image.manifest.digest) for image in images)
    name = f"{client.registry}/{REPOSITORY}:v1"
    assert main(["join", name, arm, amd, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["platforms_lost"] == []
    assert "before" not in caplog.text

    assert main(["join", name, amd, "--json"]) == 0

    assert "linux/arm64 was under the tag v1 before and no longer is" in caplog.text
    assert json.loads(capsys.readouterr().out)["platforms_lost"] == ["linux/arm64"]


def test_an_image_without_an_index_loses_its_platform_too(
    client: RegistryClient,
    layout: Layout,
    images: list[PlatformImage],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arm, amd = images
    client.manifests.put(REPOSITORY, "v1", layout.read(amd.manifest), amd.manifest.media_type)

    assert main(["join", f"{client.registry}/{REPOSITORY}:v1", str(arm.manifest.digest), "--json"]) == 0

    assert "linux/amd64 was under the tag v1 before" in caplog.text
    assert json.loads(capsys.readouterr().out)["platforms_lost"] == ["linux/amd64"]


@pytest.mark.parametrize("count", [64, 128])
def test_the_hex_of_a_digest_is_no_tag(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["join", "registry.test/shop/web:v1", "a" * count]) == ExitCode.INVALID_INPUT
    said = capsys.readouterr().err
    assert "next: Use sha256: followed by 64 lower-case hex digits." in said
    assert "inspect" not in said


def test_a_tag_in_place_of_a_digest_is_refused_with_the_way_to_its_digests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["join", "registry.test/shop/web:v1", "amd", "arm"]) == ExitCode.INVALID_INPUT
    said = capsys.readouterr().err
    assert "not a valid digest: 'amd'" in said
    assert "`soci-pipeline inspect registry.test/shop/web:amd` shows" in said


def test_a_platform_that_is_named_more_exactly_than_before_is_not_lost(
    client: RegistryClient, layout: Layout, images: list[PlatformImage], caplog: pytest.LogCaptureFixture
) -> None:
    exact = branch_v2(layout, Platform.parse("linux/arm64/v8"))
    assert exact.soci_index is not None
    upload(client, layout, exact.manifest, exact.soci_index)
    name = f"{client.registry}/{REPOSITORY}:v1"

    assert main(["join", name, str(images[0].manifest.digest)]) == 0
    assert main(["join", name, str(exact.manifest.digest)]) == 0

    assert "before" not in caplog.text


def test_an_old_image_that_cannot_be_read_is_replaced(
    client: RegistryClient,
    images: list[PlatformImage],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arm, amd = (str(image.manifest.digest) for image in images)
    name = f"{client.registry}/{REPOSITORY}:v1"
    assert main(["join", name, arm, amd]) == 0
    old = client.manifests.head(REPOSITORY, "v1")
    assert old is not None
    kept = Layout(tmp_path / "registry" / REPOSITORY.replace("/", "+"))
    flip(kept.blob_path(old.digest), 20)

    assert main(["join", name, amd, "--json"]) == 0

    assert "cannot read which platforms the tag v1 had" in caplog.text
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["platforms_lost"] is None
    assert client.manifests.head(REPOSITORY, "v1") != old


def test_a_tag_of_something_that_is_no_image_is_replaced(client: RegistryClient, images: list[PlatformImage]) -> None:
    arm = images[0]
    assert arm.soci_index is not None
    artifact, data = client.manifests.get(REPOSITORY, arm.soci_index.digest)
    client.manifests.put(REPOSITORY, "v1", data, artifact.media_type)

    assert main(["join", f"{client.registry}/{REPOSITORY}:v1", str(arm.manifest.digest)]) == 0

    moved = client.manifests.head(REPOSITORY, "v1")
    assert moved is not None
    assert moved.digest != artifact.digest


def test_an_image_that_was_not_asked_for_is_to_be_left_out_or_asked_for(
    client: RegistryClient, images: list[PlatformImage], capsys: pytest.CaptureFixture[str]
) -> None:
    digests = [str(image.manifest.digest) for image in images]
    command = ["join", f"{client.registry}/{REPOSITORY}:v1", *digests, "--platform", "linux/amd64"]

    assert main(command) == ExitCode.JOIN_REFUSED

    said = capsys.readouterr().err
    assert "linux/arm64: this platform was not requested" in said
    assert "leave them out, or request only the existing platforms." in said
    assert client.manifests.head(REPOSITORY, "v1") is None


def test_without_a_tag_the_index_is_there_by_digest_alone(
    client: RegistryClient, images: list[PlatformImage], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["join", f"{client.registry}/{REPOSITORY}", str(images[0].manifest.digest)]) == 0

    assert "linux/arm64" in capsys.readouterr().out
    assert client.tags.list(REPOSITORY) == ()


def test_images_that_do_not_fit_publish_nothing(
    client: RegistryClient, images: list[PlatformImage], capsys: pytest.CaptureFixture[str]
) -> None:
    digest = str(images[0].manifest.digest)
    command = ["join", f"{client.registry}/{REPOSITORY}:v1", digest, "--platform", "linux/amd64", "--json"]

    assert main(command) == ExitCode.JOIN_REFUSED

    output = capsys.readouterr()
    assert "linux/amd64: no image of this platform" in output.err
    assert json.loads(output.out)["error"] == "JoinRefused"
    assert client.tags.list(REPOSITORY) == ()


@pytest.mark.parametrize(
    "arguments",
    [
        ["not a reference", "sha256:" + "0" * 64],
        ["127.0.0.1:1/app:v1", "sha256:short"],
        ["127.0.0.1:1/app@sha256:" + "0" * 64, "sha256:" + "0" * 64],
        ["127.0.0.1:1/app", "sha256:" + "0" * 64, "--annotation", "nothing"],
        ["127.0.0.1:1/app", "sha256:" + "0" * 64, "--platform", "linux"],
        ["127.0.0.1:1/app:v1", "sha256:" + "0" * 64, "sha256:" + "0" * 64],
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_registry_is_asked(arguments: list[str]) -> None:
    assert main(["join", *arguments]) == ExitCode.INVALID_INPUT
