"""Where a build cache lies: a reference of its own for each image, platform, source and ref."""

import itertools
from typing import Any

import pytest

from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.build_cache import DEFAULT_TEMPLATE, BuildCache
from soci_pipeline.registry.reference import ImageReference
from tests.support.images import AMD64, ARM64

IMAGE = ImageReference.parse("127.0.0.1:5000/team/app")
URL = "https://git.example.com/app.git"
MAIN = "refs/heads/main"


def commit(branch: str | None = MAIN, default: str | None = MAIN, url: str = URL) -> ResolvedSource:
    fields: dict[str, Any] = {"url": url, "ref": branch or "a" * 40, "commit": "a" * 40, "commit_time": 1}
    return ResolvedSource(**fields, branch=branch, default_branch=default)


def cache(
    source: ResolvedSource, image: ImageReference = IMAGE, platform: Platform = AMD64, template: str = DEFAULT_TEMPLATE
) -> BuildCache:
    return BuildCache.of(template, image, platform, source)


def test_a_branch_reads_its_own_cache_and_then_the_default_branchs_and_writes_its_own_alone() -> None:
    main, feature = cache(commit()), cache(commit("refs/heads/feature/login"))
    assert main.imports == (main.export,)
    assert feature.imports == (feature.export, main.export)
    assert str(main.export).startswith("127.0.0.1:5000/team/app:cache-linux-amd64-main-")
    assert str(feature.export).startswith("127.0.0.1:5000/team/app:cache-linux-amd64-feature-login-")


def test_no_two_images_platforms_sources_or_refs_share_a_cache() -> None:
    refs = (MAIN, "refs/heads/a/b", "refs/heads/a-b", "refs/tags/main", "refs/pull/7/head", "refs/heads/pull-7-head")
    sources = (URL, "https://git.example.com/fork/app.git")
    images = (IMAGE, ImageReference.parse("127.0.0.1:5000/team/other"), ImageReference.parse("other:5000/team/app"))
    templates = (DEFAULT_TEMPLATE, "cache.example.com/{image}:{platform}-{ref}")
    for template in templates:
        made = [
            cache(commit(ref, url=url), image, platform, template).export
            for ref, url, image, platform in itertools.product(refs, sources, images, (AMD64, ARM64))
        ]
        assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    ("ref", "url"),
    [("refs/pull/7/head", URL), ("refs/heads/pull/7/main", URL), (MAIN, "https://git.example.com/fork/app.git")],
    ids=["a pull request", "a branch with a name like it", "a fork's branch of the same name"],
)
def test_what_a_stranger_builds_is_never_written_where_the_default_branch_reads(ref: str, url: str) -> None:
    theirs = cache(commit(ref, url=url))
    assert theirs.export is not None
    assert theirs.export not in cache(commit()).imports


def test_a_commit_of_no_branch_reads_the_default_branchs_cache_and_writes_none() -> None:
    found = cache(commit(None))
    assert (found.imports, found.export) == (cache(commit()).imports, None)
    assert found.cache_to == ()
    assert cache(commit(None, None)) == BuildCache()


def test_a_cache_may_lie_in_another_registry_under_the_images_repository() -> None:
    found = cache(commit(), template="cache.example.com/keep/{image}:{platform}-{ref}").export
    assert str(found).startswith("cache.example.com/keep/team/app:linux-amd64-main-")


def test_the_export_has_all_stages_in_the_form_that_ecr_takes_and_its_failure_is_none_of_the_build() -> None:
    (export,) = cache(commit()).cache_to
    fields = export.split(",")
    assert fields[:2] == ["type=registry", f"ref={cache(commit()).export}"]
    assert set(fields[2:]) == {"mode=max", "image-manifest=true", "oci-mediatypes=true", "ignore-error=true"}


@pytest.mark.parametrize("ref", ["refs/heads/" + "x" * 250, "refs/heads/ä/ö/🚀", "refs/heads/-.-"])
def test_any_ref_gives_a_tag(ref: str) -> None:
    found = cache(commit(ref), platform=Platform("linux", "arm", "v7"))
    assert found.export is not None
    assert str(found.export).isascii()
