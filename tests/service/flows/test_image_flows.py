"""verify-image, index-image and prune-repository as whole flows, against a registry on loopback."""

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

from flows.index_image import index_image
from flows.prune_repository import prune_repository
from flows.verify_image import verify_image
from soci_pipeline.errors import InvalidInput, VerificationFailed
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.reindex.index import IndexedImage
from soci_pipeline.soci.index.records import SociOptions
from tasks.artifacts import key_of
from tests.support.images import AMD64, ARM64, index_layout
from tests.support.published import REPOSITORY, stored, tag

SMALL = SociOptions(min_layer_size=0, span_size=1 << 16)


@pytest.fixture(autouse=True)
def work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(tmp_path / "work"))


@pytest.fixture
def image(client: RegistryClient, tmp_path: Path) -> str:
    """An image of two platforms without SOCI indexes, under the tag v1."""
    push(client, tmp_path / "image", "v1")
    return f"{client.registry}/{REPOSITORY}:v1"


def push(client: RegistryClient, folder: Path, name: str) -> Descriptor:
    layout = index_layout(folder)
    tag(client, layout, layout.root(), name)
    return layout.root()


def artifact(kind: str, image: str) -> str:
    """The newest artifact of a kind that the runs for an image have left."""
    key = key_of(kind, ImageReference.parse(image))
    with get_client(sync_client=True) as prefect:
        found = prefect.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])), sort=ArtifactSort.CREATED_DESC, limit=1
        )
    return str(found[0].data)


def index(image: str, suffix: str = "") -> IndexedImage:
    return index_image(image, suffix=suffix, soci=SMALL)


def test_an_image_is_indexed_and_then_passes_the_gate(image: str) -> None:
    found = index(image)
    report = verify_image(image, mode="all", platforms=["linux/amd64", "linux/arm64"])
    assert found.changed
    assert {each.platform for each in found.platforms if each.soci_index} == {AMD64, ARM64}
    assert report.ok
    assert report.lazy_bytes > 0
    said = artifact("verification", image)
    assert "verified" in said
    assert f"`{found.index}`" in said


def test_indexing_what_is_indexed_changes_nothing(image: str) -> None:
    assert index(index(image).reference).changed is False


def test_a_suffix_writes_a_tag_of_its_own(image: str, client: RegistryClient) -> None:
    index(image, suffix="-soci")
    assert set(client.tags.list(REPOSITORY)) == {"v1", "v1-soci"}


def test_the_gate_names_every_finding_in_its_error_and_in_an_artifact(
    image: str, client: RegistryClient, tmp_path: Path
) -> None:
    kept = stored(tmp_path / "registry")
    root = client.manifests.get(REPOSITORY, "v1")[0]
    configs = [each for each in kept.walk(root) if each.media_type.endswith("config.v1+json")]
    for config in configs:
        kept.blob_path(config.digest).unlink()
    with pytest.raises(VerificationFailed) as caught:
        verify_image(image)
    said = artifact("verification", image)
    assert len(configs) == 2
    for config in configs:
        assert config.digest in caught.value.reason
        assert config.digest in said
    assert "not verified" in said


def test_a_dry_run_of_indexing_writes_nothing_and_says_what_it_would_fetch(image: str, client: RegistryClient) -> None:
    before = client.manifests.get(REPOSITORY, "v1")[0]
    found = index_image(image, soci=SMALL, dry_run=True)
    assert found.dry_run
    assert found.bytes_to_fetch > 0
    assert client.manifests.get(REPOSITORY, "v1")[0] == before
    assert client.tags.list(REPOSITORY) == ("v1",)
    said = artifact("indexing-plan", image)
    layers = {layer.digest for each in found.platforms for layer in each.layers}
    assert layers
    assert all(f"`{layer}`" in said for layer in layers)


def test_a_missing_platform_fails_the_verification(image: str) -> None:
    with pytest.raises(VerificationFailed, match="s390x"):
        verify_image(image, platforms=["linux/s390x"])


def test_a_reference_without_a_target_is_refused(client: RegistryClient) -> None:
    bare = f"{client.registry}/{REPOSITORY}"
    with pytest.raises(InvalidInput, match="neither a tag nor a digest"):
        verify_image(bare)
    with pytest.raises(InvalidInput, match="neither a tag nor a digest"):
        index_image(bare)


def test_pruning_deletes_nothing_until_it_is_told_to(image: str, client: RegistryClient, tmp_path: Path) -> None:
    repository = f"{client.registry}/{REPOSITORY}"
    index(image, suffix="-soci")
    planned = prune_repository(repository, keep=["*-soci"])
    assert planned.dry_run
    plan = artifact("retention", repository)
    assert "A dry run" in plan
    assert all(f"| `{name}` |" in plan for name in (*planned.deleted, *planned.kept))
    assert "v1" in planned.deleted
    assert set(client.tags.list(REPOSITORY)) == {"v1", "v1-soci"}
    done = prune_repository(repository, keep=["*-soci"], dry_run=False)
    assert done.deleted == planned.deleted
    assert "A dry run" not in artifact("retention", repository)
    assert set(client.tags.list(REPOSITORY)) == {"v1-soci"}
    assert verify_image(f"{repository}:v1-soci").ok


def test_a_digest_in_use_stays(image: str, client: RegistryClient) -> None:
    repository = f"{client.registry}/{REPOSITORY}"
    digest = client.manifests.get(REPOSITORY, "v1")[0].digest
    done = prune_repository(repository, keep_in_use=[f"{repository}@{digest}"], dry_run=False)
    assert done.deleted == ()
    assert client.manifests.head(REPOSITORY, digest) is not None


def test_without_a_rule_nothing_is_pruned(image: str, client: RegistryClient) -> None:
    with pytest.raises(InvalidInput, match="no rule"):
        prune_repository(f"{client.registry}/{REPOSITORY}", dry_run=False)
    assert client.tags.list(REPOSITORY) == ("v1",)


@pytest.mark.parametrize("dry_run", [True, False])
def test_rules_that_keep_nothing_prune_nothing(image: str, client: RegistryClient, dry_run: bool) -> None:
    with pytest.raises(InvalidInput, match="keep nothing of") as caught:
        prune_repository(f"{client.registry}/{REPOSITORY}", keep=["v2*"], dry_run=dry_run)
    assert not caught.value.temporary
    assert client.tags.list(REPOSITORY) == ("v1",)


def test_pruning_takes_a_repository_and_no_image(image: str) -> None:
    with pytest.raises(InvalidInput, match="tag or digest"):
        prune_repository(image, keep=["*"])
