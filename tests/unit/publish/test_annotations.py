"""What an image index says of where it came from."""

import pytest

from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.publish.annotations import index_annotations

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
