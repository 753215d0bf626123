"""The build step for a Prefect user's own flow image: from what a builder left to a verified tag."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import InvalidInput, SociPipelineError
from soci_pipeline.oci.manifest import ImageIndex, parse
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.flow_image import publish
from soci_pipeline.registry.client import RegistryClient
from tests.support.archives import oci_archive
from tests.support.images import AMD64, ARM64, image_layout, large_layer

FLOWS = "team/flows"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `prefect deploy` is called in, with an image for each platform that somebody has built."""
    project = tmp_path / "project"
    project.mkdir()
    for platform in (AMD64, ARM64):
        image = image_layout(tmp_path / platform.slug, platform, [large_layer(platform)])
        oci_archive(project / f"{platform.slug}.tar", image)
    monkeypatch.chdir(project)
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(tmp_path / "work"))
    return project


def _step(client: RegistryClient, **given: Any) -> dict[str, str]:
    """The step, with the keys that `prefect.yaml` has."""
    keys = {"image_name": f"{client.registry}/{FLOWS}", "builder": "prebuilt", "prebuilt": "{platform}.tar"}
    return publish(**(keys | given))


def test_the_step_publishes_all_platforms_indexed_and_returns_what_a_deployment_needs(
    client: RegistryClient, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = _step(client, tag="v1")

    name = f"{client.registry}/{FLOWS}"
    descriptor, data = client.manifests.get(FLOWS, "v1")
    assert answer == {
        "image": f"{name}:v1",
        "image_name": name,
        "tag": "v1",
        "digest": str(descriptor.digest),
        "reference": f"{name}@{descriptor.digest}",
    }
    assert _platforms(data) == [AMD64, ARM64]
    capsys.readouterr()
    assert main(["verify", f"{name}:v1", "--all", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert all(each["lazy_bytes"] < each["total_bytes"] for each in report["platforms"]), report


def _platforms(data: bytes) -> Sequence[Platform]:
    index = parse(data)
    assert isinstance(index, ImageIndex)
    return [each.platform for each in index.manifests if each.platform in (AMD64, ARM64) and not each.artifact_type]


def test_without_a_tag_it_is_the_time(client: RegistryClient) -> None:
    answer = _step(client, platforms=["linux/amd64"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dt\d\d-\d\d-\d\dz", answer["tag"])
    assert list(client.tags.list(FLOWS)) == [answer["tag"]]


def test_a_platform_that_fails_leaves_no_tag(client: RegistryClient, folder: Path) -> None:
    (folder / f"{ARM64.slug}.tar").write_bytes(b"no archive")
    with pytest.raises(SociPipelineError):
        _step(client, tag="v1")
    assert client.manifests.head(FLOWS, "v1") is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"image_name": "127.0.0.1:1/team/flows:v1"}, "has a tag or digest"),
        ({"tag": "feature/x"}, "feature/x"),
        ({"platforms": []}, "platforms: at least one platform is required"),
        ({"platforms": ["linux"]}, "linux"),
        ({"builder": "kaniko"}, "builder: Input should be 'auto', 'buildx', 'docker' or 'prebuilt'"),
    ],
)
def test_a_wrong_key_is_named_before_anything_is_pushed(
    given: dict[str, Any], words: str, client: RegistryClient
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(words)):
        _step(client, **given)
    assert client.manifests.head(FLOWS, "v1") is None


def test_a_dockerfile_that_is_missing_is_named(client: RegistryClient) -> None:
    with pytest.raises(SociPipelineError, match=r"Dockerfile\.flows"):
        publish(image_name=f"{client.registry}/{FLOWS}", dockerfile="Dockerfile.flows", builder="buildx")
