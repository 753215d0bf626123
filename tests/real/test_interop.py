"""What this project publishes, read by other people's tools: containerd, oras and Docker's buildx."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local_stack.base_image import debian_base_image
from local_stack.toolchain import Toolchain
from soci_pipeline.machine.programs import run
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.media_types import SOCI_INDEX_V1, SOCI_INDEX_V2
from soci_pipeline.publish.collect import reader
from soci_pipeline.publish.join import join
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph
from soci_pipeline.registry.server import serving
from soci_pipeline.soci.index.convert import convert
from soci_pipeline.soci.index.records import IndexVersion, PlatformImage, SociOptions
from tests.support.images import AMD64, ARM64
from tests.support.snapshotter import PrivateContainerd

PLATFORMS = (AMD64, ARM64)


@dataclass(frozen=True)
class Published:
    """A tag, the index under it, and the branches that were joined."""

    reference: str
    index: Descriptor
    images: tuple[PlatformImage, ...]
    env: dict[str, str]

    def tool(self, *words: str | Path) -> str:
        """What a program of the toolchain prints."""
        return run([str(word) for word in words], env=self.env, timeout=300).stdout


@pytest.fixture(scope="module")
def environment(toolchain: Toolchain, or_skip: Callable[[], AbstractContextManager[None]]) -> dict[str, str]:
    with or_skip():
        env = toolchain.ensure(["oras", "buildx"])
    return env | {"DOCKER_CONFIG": str(toolchain.docker_configuration())}


@pytest.fixture(scope="module")
def base_image(toolchain: Toolchain, or_skip: Callable[[], AbstractContextManager[None]]) -> Layout:
    """Real content for both platforms, with a layer above 10 MiB each."""
    with or_skip():
        return debian_base_image(toolchain, PLATFORMS)


@pytest.fixture(scope="module", params=["embedded", "docker-registry"])
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "docker-registry":
        yield request.getfixturevalue("docker_registry")
        return
    with serving(tmp_path_factory.mktemp("embedded")) as address:
        yield address


@pytest.fixture(scope="module", params=[IndexVersion.V2, IndexVersion.V1])
def published(
    request: pytest.FixtureRequest,
    registry: str,
    base_image: Layout,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Published:
    """One tag for two platforms, published as the branches and the join do it."""
    repository = f"interop/{request.param}"
    options = SociOptions(version=request.param)
    images = []
    with RegistryClient(registry) as client:
        for platform in PLATFORMS:
            folder = tmp_path_factory.mktemp(platform.slug) / "indexed"
            conversion = convert(base_image, folder, options=options, platforms=[platform])
            (image,) = conversion.images
            extra = (image.soci_index,) if image.soci_index else ()
            push_graph(conversion.layout, image.manifest, client, repository, extra_roots=extra)
            images.append(image)
        index = join(images, annotations={}, read=reader(client, repository), platforms=PLATFORMS)
        client.manifests.put(repository, "1.0", index.encode(), index.media_type)
    return Published(f"{registry}/{repository}:1.0", index.descriptor, tuple(images), environment)


def test_both_platforms_were_indexed(published: Published) -> None:
    assert [image.platform for image in published.images] == list(PLATFORMS)
    assert all(image.soci_index for image in published.images)


def test_containerd_pulls_and_unpacks_each_platform(published: Published, containerd: PrivateContainerd) -> None:
    for image in published.images:
        pull = ["ctr", "image", "pull", "--plain-http", "--platform", str(image.platform), published.reference]
        containerd.run(pull)
        listing = containerd.run(["ctr", "image", "ls", f"name=={published.reference}"]).stdout
        assert published.index.digest in listing
        manifest = json.loads(containerd.run(["ctr", "content", "get", image.manifest.digest]).stdout)
        config = json.loads(containerd.run(["ctr", "content", "get", manifest["config"]["digest"]]).stdout)
        assert config["architecture"] == image.platform.architecture
        containerd.run(["ctr", "image", "rm", "--sync", published.reference])


def test_containerd_fetches_the_content_of_all_platforms(published: Published, containerd: PrivateContainerd) -> None:
    containerd.run(["ctr", "content", "fetch", "--plain-http", "--all-platforms", published.reference])
    stored = containerd.run(["ctr", "content", "ls", "--quiet"]).stdout.split()
    wanted = {published.index.digest}
    for image in published.images:
        wanted |= {image.manifest.digest} | {layer.digest for layer in image.layers}
    if published.images[0].soci_version is IndexVersion.V2:
        # They are entries of the index; containerd keeps them with the image.
        wanted |= {image.soci_index.digest for image in published.images if image.soci_index}
    containerd.run(["ctr", "image", "rm", "--sync", published.reference])
    assert wanted <= set(stored)


def test_oras_copies_the_tag_with_everything_below_it(published: Published, tmp_path: Path) -> None:
    target = f"{tmp_path / 'copy'}:1.0"
    published.tool("oras", "cp", "--from-plain-http", published.reference, "--to-oci-layout", target)
    copy = Layout.open(tmp_path / "copy")
    # oras lists the children too; what the tag names is the one with its name.
    (root,) = [item for item in copy.roots() if item.annotations.get("org.opencontainers.image.ref.name") == "1.0"]
    assert root.digest == published.index.digest
    reached = {node.digest for node in copy.walk(root)}
    assert all(copy.has(node) for node in copy.walk(root))
    for image in published.images:
        assert {layer.digest for layer in image.layers} <= reached
        if image.soci_version is IndexVersion.V2:
            assert {layer.ztoc for layer in image.layers if layer.ztoc} <= reached


def test_oras_takes_each_platform_from_the_tag(published: Published, tmp_path: Path) -> None:
    for image in published.images:
        chosen = ["--platform", str(image.platform)]
        described = published.tool(
            "oras", "manifest", "fetch", "--plain-http", "--descriptor", *chosen, published.reference
        )
        assert json.loads(described)["digest"] == image.manifest.digest
        target = f"{tmp_path / image.platform.slug}:1.0"
        published.tool("oras", "cp", "--from-plain-http", *chosen, published.reference, "--to-oci-layout", target)
        (root,) = Layout.open(tmp_path / image.platform.slug).roots()
        assert root.digest == image.manifest.digest


def test_buildx_inspects_the_tag(published: Published) -> None:
    inspect = ["docker-buildx", "imagetools", "inspect", published.reference]
    raw = published.tool(*inspect, "--raw")
    assert Digest.of(raw.encode()) == published.index.digest
    listing = published.tool(*inspect)
    assert published.index.digest in listing
    for image in published.images:
        assert image.manifest.digest in listing
        assert str(image.platform) in listing


def test_oras_discovers_the_v1_index_of_each_platform(published: Published) -> None:
    for image in published.images:
        name = published.reference.removesuffix(":1.0")
        discover = ["oras", "discover", "--plain-http", "--format", "json", f"{name}@{image.manifest.digest}"]
        answer: dict[str, Any] = json.loads(published.tool(*discover))
        found = [(item["digest"], item["artifactType"]) for item in answer.get("manifests") or ()]
        if image.soci_version is IndexVersion.V1:
            assert image.soci_index is not None
            assert found == [(image.soci_index.digest, SOCI_INDEX_V1)]
        else:
            # Under v2 the index is found by the manifest's annotation; nothing refers to the image.
            assert found == []
            assert image.soci_index is not None
            assert image.soci_index.artifact_type == SOCI_INDEX_V2
