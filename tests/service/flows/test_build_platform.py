"""The branch's flow with real steps in a Prefect server: what it pushes, leaves behind, shows and records."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import Artifact

from flows.build_platform import build_platform
from soci_pipeline.errors import BranchFailed
from soci_pipeline.git import source
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.request import BranchRequest, PublishRequest
from soci_pipeline.registry.client import RegistryClient
from tasks.artifacts import key_of
from tasks.records import read_record
from tests.support.git_repositories import repository
from tests.support.images import AMD64, ARM64, image_layout
from tests.support.published import REPOSITORY


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(folder))
    return folder


@pytest.fixture
def branch(client: RegistryClient, tmp_path: Path) -> BranchRequest:
    """A branch for an image that was made elsewhere."""
    application = repository(tmp_path / "app")
    image_layout(tmp_path / "prebuilt" / AMD64.slug, AMD64)
    request = PublishRequest.check(
        {
            "image": f"{client.registry}/{REPOSITORY}",
            "source": str(application.path),
            "builder": "prebuilt",
            "prebuilt": f"{tmp_path}/prebuilt/{{platform}}",
            "soci": {"min_layer_size": 0, "span_size": 65536},
        }
    )
    return request.branch(AMD64, source.resolve(str(application.path)))


def _artifacts(run_id: UUID) -> list[Artifact]:
    with get_client(sync_client=True) as client:
        return client.read_artifacts(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))


def _run(branch: BranchRequest) -> tuple[Any, UUID]:
    state = build_platform(branch, return_state=True)
    run_id = state.state_details.flow_run_id
    assert run_id is not None
    return state, run_id


def test_a_branch_records_by_its_run_what_it_has_pushed(
    work: Path, branch: BranchRequest, client: RegistryClient
) -> None:
    state, run_id = _run(branch)
    assert state.is_completed(), state.message
    image = read_record(run_id, AMD64)
    assert image.platform == AMD64
    assert all(layer.ztoc for layer in image.layers)
    assert client.manifests.head(REPOSITORY, image.manifest.digest) is not None
    assert client.tags.list(REPOSITORY) == ()


def test_a_branch_shows_its_layers_and_its_progress(work: Path, branch: BranchRequest) -> None:
    _, run_id = _run(branch)
    artifacts = _artifacts(run_id)
    (layers,) = [each for each in artifacts if each.key == key_of("layers", branch.image, "linux-amd64")]
    assert layers.type == "markdown"
    assert "sha256:" in str(layers.data)
    progress = {each.type: each for each in artifacts}["progress"]
    assert progress.data == 100.0


def test_the_page_of_a_platforms_layers_has_a_stable_key(work: Path, branch: BranchRequest) -> None:
    runs = {_run(branch)[1] for _ in range(2)}
    key = ArtifactFilter(key=ArtifactFilterKey(any_=[key_of("layers", branch.image, "linux-amd64")]))
    with get_client(sync_client=True) as prefect:
        found = prefect.read_artifacts(artifact_filter=key)
    assert runs <= {artifact.flow_run_id for artifact in found}


def test_a_branch_leaves_nothing_but_its_cache_on_the_worker(work: Path, branch: BranchRequest) -> None:
    _run(branch)
    assert list((work / "runs").iterdir()) == []


def test_a_branch_that_fails_says_why_and_leaves_nothing_either(
    work: Path, branch: BranchRequest, tmp_path: Path
) -> None:
    (tmp_path / "prebuilt" / AMD64.slug).rename(tmp_path / "gone")
    state, run_id = _run(branch)
    assert state.is_failed()
    assert AMD64.slug in (state.message or "")
    assert list((work / "runs").iterdir()) == []
    with pytest.raises(BranchFailed, match="without a record"):
        read_record(run_id, AMD64)


def test_the_image_of_another_platform_fails_the_branch(
    work: Path, branch: BranchRequest, tmp_path: Path, client: RegistryClient
) -> None:
    (tmp_path / "prebuilt" / AMD64.slug).rename(tmp_path / "prebuilt" / ARM64.slug)
    state, _ = _run(branch.model_copy(update={"platform": Platform("linux", "arm64")}))
    assert state.is_failed()
    assert "PlatformMismatch" in (state.message or "")
