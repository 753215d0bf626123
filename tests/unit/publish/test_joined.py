"""What surrounds the join: annotations that repeat with the commit, and reading children back from the registry."""

from pathlib import Path

import pytest

from soci_pipeline.publish.joined import index_annotations, reader
from soci_pipeline.publish.source import ResolvedSource
from soci_pipeline.registry.push import push_graph
from tests.support.images import image_layout, only_manifest
from tests.support.registries import REPOSITORY, registry

COMMIT = "a" * 40


def _source(url: str) -> ResolvedSource:
    return ResolvedSource(url=url, ref="refs/heads/main", commit=COMMIT, commit_time=1_700_000_000)


def test_annotations_say_commit_source_and_the_commits_time() -> None:
    assert index_annotations(_source("https://git.example.com/app.git")) == {
        "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
        "org.opencontainers.image.revision": COMMIT,
        "org.opencontainers.image.source": "https://git.example.com/app.git",
    }


@pytest.mark.parametrize(
    "url", ["git://127.0.0.1:4000/app.git", "http://localhost:8080/app", "/srv/app", "file:///srv"]
)
def test_an_address_that_only_this_machine_knows_is_left_out(url: str) -> None:
    assert "org.opencontainers.image.source" not in index_annotations(_source(url))


def test_manifests_and_configs_are_read_back_from_the_registry(tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout")
    with registry(tmp_path / "registry") as client:
        push_graph(layout, layout.root(), client, REPOSITORY)
        read = reader(client, REPOSITORY)
        assert read(layout.root()) == layout.read(layout.root())
        config = only_manifest(layout).config
        assert read(config) == layout.read(config)
