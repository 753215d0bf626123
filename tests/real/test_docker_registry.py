"""The client against Debian's docker-registry (distribution 2.8): what a registry of another make does differently.

It knows no referrers API, takes parts without looking at Content-Range, and refuses an index before its children.
"""

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import BlobUnknown, ManifestUnknown
from soci_pipeline.registry.pull import pull_graph
from soci_pipeline.registry.push import push_graph
from soci_pipeline.registry.referrers import fallback_tag
from soci_pipeline.registry.settings import ClientSettings
from tests.support.images import index_layout
from tests.support.registries import described, noise, push_image, upload
from tests.support.releases import release

SETTINGS = ClientSettings(attempts=3, backoff_base=0.01, part_size=1 << 20, settle_time=0.2)


@pytest.fixture
def repository() -> str:
    return f"test/{random.getrandbits(64):x}"


@pytest.fixture
def client(docker_registry: str) -> Iterator[RegistryClient]:
    with RegistryClient(docker_registry, settings=SETTINGS) as client:
        client.ping()
        yield client


def test_a_graph_goes_there_and_comes_back_the_same(client: RegistryClient, repository: str, tmp_path: Path) -> None:
    layout = index_layout(tmp_path / "source", attestations=True)
    report = push_graph(layout, layout.root(), client, repository, tag="v1")
    pulled = Layout.create(tmp_path / "pulled")
    assert pull_graph(client, repository, "v1", pulled) == layout.root().plain
    assert {node.digest for node in pulled.walk(report.root)} == {node.digest for node in layout.walk(report.root)}


def test_a_second_push_sends_nothing(client: RegistryClient, repository: str, tmp_path: Path) -> None:
    layout = index_layout(tmp_path / "source")
    first = push_graph(layout, layout.root(), client, repository, tag="v1")
    second = push_graph(layout, layout.root(), client, repository, tag="v1")
    assert (second.bytes_uploaded, second.blobs_uploaded) == (0, 0)
    assert second.bytes_skipped == first.bytes_uploaded


def test_a_blob_goes_up_in_parts(client: RegistryClient, repository: str) -> None:
    data = noise((5 << 20) + 17)
    sent: list[int] = []
    descriptor = described(data)
    assert client.blobs.upload(repository, descriptor, lambda: io.BytesIO(data), on_bytes=sent.append)
    assert sum(sent) == len(data)
    with client.blobs.stream(repository, descriptor) as chunks:
        assert b"".join(chunks) == data
    assert not client.blobs.upload(repository, descriptor, lambda: io.BytesIO(data))


def test_an_empty_blob_and_a_range_work(client: RegistryClient, repository: str) -> None:
    assert client.blobs.read(repository, upload(client, b"", to=repository)) == b""
    descriptor = upload(client, noise(100_000), to=repository)
    assert client.blobs.read_range(repository, descriptor.digest, 70_000, 70_100) == noise(100_000)[70_000:70_100]


def test_a_blob_is_mounted_from_another_repository(client: RegistryClient, repository: str) -> None:
    data = noise(50_000, seed=7)
    descriptor = upload(client, data, to=f"{repository}/other")
    assert not client.blobs.upload(repository, descriptor, lambda: io.BytesIO(data), mount_from=f"{repository}/other")
    assert client.blobs.read(repository, descriptor) == data


def test_an_index_before_its_children_is_refused_by_name(client: RegistryClient, repository: str) -> None:
    _, manifest = push_image(client, to=repository)
    absent = manifest.replaced(annotations={"a": "b"}).descriptor
    index = ImageIndex(manifests=(absent,))
    with pytest.raises((BlobUnknown, ManifestUnknown)):
        client.manifests.put(repository, "index", index.encode(), index.media_type)


def test_referrers_are_kept_under_the_fallback_tag(client: RegistryClient, repository: str) -> None:
    subject, manifest = push_image(client, "v1", to=repository)
    for kind in ("application/x.one", "application/x.two"):
        referrer = manifest.replaced(layers=(), subject=subject, artifact_type=kind)
        for _ in range(2):
            client.manifests.put(repository, referrer.descriptor.digest, referrer.encode(), referrer.media_type)
    assert len(client.referrers.list(repository, subject.digest)) == 2
    assert [
        entry.artifact_type for entry in client.referrers.list(repository, subject.digest, "application/x.two")
    ] == ["application/x.two"]
    assert fallback_tag(subject.digest) in client.tags.list(repository)


def test_tags_are_listed_and_what_is_deleted_is_gone(client: RegistryClient, repository: str) -> None:
    descriptor, _ = push_image(client, "v1", to=repository)
    assert client.tags.list(repository) == ("v1",)
    assert client.manifests.head(repository, "v1") == descriptor
    client.manifests.delete(repository, descriptor.digest)
    assert client.manifests.head(repository, descriptor.digest) is None
    with pytest.raises(ManifestUnknown):
        client.manifests.get(repository, "v1")


def test_it_is_pruned_and_what_is_left_is_read_to_the_last_byte(
    client: RegistryClient, repository: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout.create(tmp_path / "layout")
    old, new = (release(client, layout, name, repository=repository) for name in ("v1", "v2"))
    wanted = ["prune", f"{client.registry}/{repository}", "--keep", "v2", "--json"]

    assert main([*wanted, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert client.manifests.head(repository, old.index.digest) is not None
    assert main(wanted) == 0
    done = json.loads(capsys.readouterr().out)

    # It takes no tag off a manifest that stays, and says so instead of deleting the manifest.
    assert set(planned["deleted"]) - set(done["deleted"]) == {"v2-amd64"}
    assert "cannot remove a tag from" in done["reasons"]["v2-amd64"]
    assert all(client.manifests.head(repository, each.digest) is None for each in old.own)
    assert all(client.manifests.head(repository, each.digest) is not None for each in new.own)
    assert main(["verify", f"{client.registry}/{repository}:v2", "--all"]) == 0
    assert client.referrers.list(repository, new.index.digest)
