"""Tasks called as plain functions: policy apart, each is one call of the library."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.publish.source import Source
from soci_pipeline.publish.tag_names import TagNames
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import PublishSettings, Settings, WorkSettings
from soci_pipeline.soci.index.records import SociOptions
from soci_pipeline.verification.verify import verify
from tasks.index_existing import index_existing
from tasks.target import check_target
from tests.support.images import AMD64, ARM64, index_layout
from tests.support.published import REPOSITORY, tag
from tests.support.registries import AT_ONCE, registry


@contextmanager
def free(image: ImageReference) -> Iterator[None]:
    """Stands for the limit that only a Prefect server has."""
    yield


SMALL = SociOptions(min_layer_size=0, span_size=1 << 16)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(work=WorkSettings(folder=tmp_path / "work"))


def test_indexing_an_existing_image_moves_its_tag_and_passes_the_gate(tmp_path: Path, settings: Settings) -> None:
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        layout = index_layout(tmp_path / "image")
        tag(client, layout, layout.root(), "v1")
        found = index_existing.fn(
            client, ImageReference(client.registry, REPOSITORY, "v1"), settings, soci=SMALL, limit=free
        )
        assert found.changed
        assert {image.platform for image in found.platforms} == {AMD64, ARM64}
        report = verify(client, REPOSITORY, "v1", mode="all", platforms=[AMD64, ARM64])
    assert report.ok
    assert found.tags[0].tag == "v1"


def test_indexing_again_changes_nothing(tmp_path: Path, settings: Settings) -> None:
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        layout = index_layout(tmp_path / "image")
        tag(client, layout, layout.root(), "v1")
        reference = ImageReference(client.registry, REPOSITORY, "v1")
        first = index_existing.fn(client, reference, settings, soci=SMALL, limit=free)
        again = index_existing.fn(client, reference, settings, soci=SMALL, limit=free)
    assert not again.changed
    assert again.index == first.index


def test_a_suffix_leaves_the_tag_where_it_is(tmp_path: Path, settings: Settings) -> None:
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        layout = index_layout(tmp_path / "image")
        tag(client, layout, layout.root(), "v1")
        reference = ImageReference(client.registry, REPOSITORY, "v1")
        found = index_existing.fn(client, reference, settings, suffix="-soci", soci=SMALL, limit=free)
        there = client.manifests.head(REPOSITORY, "v1")
        indexed = client.manifests.head(REPOSITORY, "v1-soci")
    assert there is not None
    assert indexed is not None
    assert there.digest == layout.root().digest
    assert indexed.digest == found.index


def test_a_v1_index_of_an_existing_image_is_refused(tmp_path: Path, settings: Settings) -> None:
    with registry(tmp_path / "registry", settings=AT_ONCE) as client, pytest.raises(InvalidInput, match="v2"):
        index_existing.fn(
            client,
            ImageReference(client.registry, REPOSITORY, "v1"),
            settings,
            soci=SociOptions.model_validate({"version": "v1"}),
        )


def test_a_token_for_signing_that_is_missing_is_named_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIGSTORE_ID_TOKEN", raising=False)
    commit = ResolvedSource(
        url="https://git.example.com/app.git", ref="refs/heads/main", commit="a" * 40, commit_time=1
    )
    with registry(tmp_path / "registry", settings=AT_ONCE) as client:
        image = ImageReference(client.registry, REPOSITORY)
        settings = Settings(publish=PublishSettings(signing_token=True))
        with pytest.raises(InvalidInput, match="no OIDC token for signing found in the variable SIGSTORE_ID_TOKEN"):
            check_target.fn(image, TagNames(("v1",)), Source(commit), client, settings)
