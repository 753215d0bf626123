from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from soci_pipeline.errors import InvalidInput, PlatformMismatch
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.oci.media_types import OCI_INDEX
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import ContentMismatch, ManifestUnknown
from soci_pipeline.registry.pull import pull_graph
from soci_pipeline.registry.push import push_graph
from tests.support.faults import Fault, FaultPlan, Kind
from tests.support.images import AMD64, ARM64, image_layout, index_layout
from tests.support.registries import QUICK, REPOSITORY, registry
from tests.support.strange import strange


def digests(layout: Layout, *roots: object) -> set[str]:
    return {path.name for path in (layout.path / "blobs" / "sha256").iterdir()}


def test_a_pulled_graph_is_the_pushed_one(tmp_path: Path) -> None:
    source, target = index_layout(tmp_path / "a", attestations=True), Layout.create(tmp_path / "b")
    with registry(tmp_path / "registry") as client:
        push_graph(source, source.root(), client, REPOSITORY, tag="v1")
        assert pull_graph(client, REPOSITORY, "v1", target) == source.root().plain
        assert pull_graph(client, REPOSITORY, source.root().digest, target) == source.root().plain
    assert digests(target) == digests(source)
    assert target.roots() == ()


def test_an_index_is_reduced_to_the_platforms_that_are_wanted_and_what_is_theirs(tmp_path: Path) -> None:
    source, target = index_layout(tmp_path / "a", attestations=True), Layout.create(tmp_path / "b")
    with registry(tmp_path / "registry") as client:
        push_graph(source, source.root(), client, REPOSITORY, tag="v1")
        root = pull_graph(client, REPOSITORY, "v1", target, platforms=[Platform.parse("linux/arm64/v8")])
    document = target.read_document(root)
    assert isinstance(document, ImageIndex)
    image, attestation = document.manifests
    assert image.platform == ARM64
    assert attestation.annotations["vnd.docker.reference.digest"] == image.digest
    assert list(target.walk(root))


def test_a_platform_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    source = index_layout(tmp_path / "a", [AMD64])
    with registry(tmp_path / "registry") as client:
        push_graph(source, source.root(), client, REPOSITORY, tag="v1")
        with pytest.raises(PlatformMismatch, match=r"linux/arm64.*linux/amd64"):
            pull_graph(client, REPOSITORY, "v1", Layout.create(tmp_path / "b"), platforms=[ARM64])


def test_a_tag_that_is_not_there_is_named(tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as client, pytest.raises(ManifestUnknown, match="v1"):
        pull_graph(client, REPOSITORY, "v1", Layout.create(tmp_path / "b"))


def test_a_damaged_blob_leaves_no_root_and_no_partial_file(tmp_path: Path) -> None:
    source, target = image_layout(tmp_path / "a"), Layout.create(tmp_path / "b")
    plan = FaultPlan([Fault("GET", "/blobs/", nth=2, kind=Kind.CORRUPT, after_bytes=5)])
    with registry(tmp_path / "registry", faults=plan) as client:
        push_graph(source, source.root(), client, REPOSITORY, tag="v1")
        with pytest.raises(ContentMismatch):
            pull_graph(client, REPOSITORY, "v1", target, jobs=1)
    assert not target.has(source.root())
    assert not list((target.path / ".incoming").glob("*"))


@contextmanager
def nested(width: int, depth: int, requests: list[str]) -> Iterator[RegistryClient]:
    """A registry whose tag leads to an index that lists one other ``width`` times, and so on down."""
    stored: dict[str, bytes] = {}
    document = ImageIndex()
    for _ in range(depth):
        stored[document.descriptor.digest] = document.encode()
        document = ImageIndex(manifests=(document.descriptor,) * width)
    stored["v1"] = document.encode()

    async def answer(request: Request) -> Response:
        requests.append(request.url.path)
        return Response(stored[request.url.path.rpartition("/")[2]], media_type=OCI_INDEX)

    with strange(answer) as address, RegistryClient(address, settings=QUICK) as client:
        yield client


def test_an_index_that_lists_another_many_times_is_read_once_a_digest(tmp_path: Path) -> None:
    requests: list[str] = []
    with nested(width=50, depth=8, requests=requests) as client:
        root = pull_graph(client, REPOSITORY, "v1", Layout.create(tmp_path))
    assert len(requests) == 9
    assert len(digests(Layout(tmp_path), root)) == 9


def test_indexes_that_are_nested_too_deep_are_refused(tmp_path: Path) -> None:
    with nested(width=1, depth=20, requests=[]) as client, pytest.raises(InvalidInput, match="deeper"):
        pull_graph(client, REPOSITORY, "v1", Layout.create(tmp_path))


def test_an_index_of_too_many_manifests_is_refused(tmp_path: Path) -> None:
    empty = ImageIndex().encode()
    many = [Descriptor(media_type=OCI_INDEX, digest=Digest.of(b"%d" % number), size=2) for number in range(20_000)]
    requests: list[str] = []

    async def answer(request: Request) -> Response:
        requests.append(request.url.path)
        return Response(ImageIndex(manifests=tuple(many)).encode() if "v1" in request.url.path else empty)

    with (
        strange(answer) as address,
        RegistryClient(address, settings=QUICK) as client,
        pytest.raises(InvalidInput, match="20000 entries"),
    ):
        pull_graph(client, REPOSITORY, "v1", Layout.create(tmp_path))
    assert len(requests) == 1
