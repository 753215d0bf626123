"""One branch by the library alone: from a commit and a prebuilt image to manifests by digest in a real registry."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.errors import PlatformMismatch, SociPipelineError
from soci_pipeline.git import source
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish import branch
from soci_pipeline.publish.branch import Branch
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.retry import Stopped
from soci_pipeline.settings import Settings
from soci_pipeline.soci.index.records import PlatformImage
from tests.support.git_repositories import repository
from tests.support.images import AMD64, ARM64, gzip_layer, image_layout
from tests.support.registries import REPOSITORY
from tests.support.several_images import several_images
from tests.support.tars import noise


def _branch(tmp_path: Path, client: RegistryClient, platform: Platform = AMD64, **soci: Any) -> Branch:
    """A branch whose image was made by somebody else; every layer of it qualifies."""
    application = tmp_path / "app"
    if not application.exists():
        repository(application)
        for each in (AMD64, ARM64):
            image_layout(tmp_path / "prebuilt" / each.slug, each)
    request = PublishRequest.check(
        {
            "image": f"{client.registry}/{REPOSITORY}",
            "source": str(application),
            "builder": "prebuilt",
            "prebuilt": f"{tmp_path}/prebuilt/{{platform}}",
            "soci": {"min_layer_size": 0, "span_size": 65536} | soci,
        }
    )
    folder = tmp_path / f"run-{platform.slug}"
    folder.mkdir(exist_ok=True)
    settings = Settings.from_environment({"SOCI_PIPELINE_WORK_FOLDER": str(tmp_path / "work")})
    return Branch(request.branch(platform, source.resolve(str(application))), folder, settings)


def _published(work: Branch, client: RegistryClient) -> PlatformImage:
    """All steps in order, as the flow runs them."""
    layout = branch.import_built(work, branch.build(work, branch.check_out(work)))
    return branch.push(work, branch.index(work, layout, client), client)


def test_a_branch_ends_with_an_indexed_image_under_its_digest_and_no_tag(
    tmp_path: Path, client: RegistryClient
) -> None:
    image = _published(_branch(tmp_path, client), client)
    assert image.platform == AMD64
    assert [layer.ztoc is not None for layer in image.layers] == [True, True]
    assert image.soci_index is not None
    for pushed in (image.manifest, image.soci_index):
        assert client.manifests.head(REPOSITORY, pushed.digest) is not None
    assert client.tags.list(REPOSITORY) == ()
    assert image.bytes_uploaded > sum(layer.size for layer in image.layers)
    assert {"source", "build", "import", "index", "push"} <= set(image.timings)


def test_the_same_commit_again_gives_the_same_digests_and_uploads_nothing(
    tmp_path: Path, client: RegistryClient
) -> None:
    first = _published(_branch(tmp_path, client), client)
    again = _published(_branch(tmp_path, client), client)
    assert (again.manifest, again.soci_index) == (first.manifest, first.soci_index)
    assert again.bytes_uploaded == 0
    assert again.bytes_skipped == first.bytes_uploaded


def test_a_v1_index_is_a_referrer_of_the_image_as_it_was_built(tmp_path: Path, client: RegistryClient) -> None:
    work = _branch(tmp_path, client, version="v1")
    image = _published(work, client)
    built = Layout.open(tmp_path / "prebuilt" / AMD64.slug).root()
    assert image.manifest.digest == built.digest
    assert image.soci_index is not None
    assert [each.digest for each in client.referrers.list(REPOSITORY, built.digest)] == [image.soci_index.digest]


def test_layers_that_went_up_beside_the_indexing_are_counted_once(tmp_path: Path, client: RegistryClient) -> None:
    work = _branch(tmp_path, client)
    layout = branch.import_built(work, branch.build(work, branch.check_out(work)))
    seen: list[tuple[int, int]] = []
    before = branch.upload_layers(
        work, layout, client, threading.Event(), lambda done, total: seen.append((done, total))
    )
    conversion = branch.index(work, layout)
    image = branch.push(work, conversion, client, before=before)
    sizes = sum(layer.size for layer in image.layers)
    assert (before.sent, before.skipped, before.blobs_sent) == (sizes, 0, 2)
    assert seen[-1] == (sizes, sizes)
    index = conversion.root
    everything = sum(node.size for node in conversion.layout.walk(index) if node.digest != index.digest)
    assert (image.bytes_uploaded, image.bytes_skipped) == (everything, 0)


@pytest.mark.parametrize("there", [False, True], ids=["nothing is there", "all is there"])
def test_an_upload_ends_when_the_step_beside_it_has_failed(tmp_path: Path, client: RegistryClient, there: bool) -> None:
    work = _branch(tmp_path, client)
    layout = branch.import_built(work, branch.build(work, branch.check_out(work)))
    stop = threading.Event()
    if there:
        branch.upload_layers(work, layout, client, stop)
    stop.set()
    with pytest.raises(Stopped):
        branch.upload_layers(work, layout, client, stop)
    assert client.blobs.exists(REPOSITORY, layout.read_document(layout.root()).children[-1]) is there


def test_an_upload_that_has_begun_is_given_up_within_its_layer(tmp_path: Path, client: RegistryClient) -> None:
    work = _branch(tmp_path, client)
    image_layout(tmp_path / "large", AMD64, [gzip_layer({"noise": noise(5 << 20)})])
    layout, stop = Layout.open(tmp_path / "large"), threading.Event()
    with pytest.raises(Stopped):
        branch.upload_layers(work, layout, client, stop, lambda _done, _total: stop.set())
    assert client.blobs.exists(REPOSITORY, layout.read_document(layout.root()).children[-1]) is False


def test_an_image_of_another_platform_than_asked_for_is_refused(tmp_path: Path, client: RegistryClient) -> None:
    work = _branch(tmp_path, client, ARM64)
    (tmp_path / "prebuilt" / ARM64.slug).rename(tmp_path / "prebuilt" / "kept")
    (tmp_path / "prebuilt" / AMD64.slug).rename(tmp_path / "prebuilt" / ARM64.slug)
    with pytest.raises(PlatformMismatch):
        _published(work, client)


def test_every_step_can_run_twice(tmp_path: Path, client: RegistryClient) -> None:
    work = _branch(tmp_path, client)
    first = _published(work, client)
    assert _published(work, client).manifest == first.manifest


def test_a_missing_prebuilt_image_is_named(tmp_path: Path, client: RegistryClient) -> None:
    work = _branch(tmp_path, client)
    (tmp_path / "prebuilt" / AMD64.slug).rename(tmp_path / "elsewhere")
    with pytest.raises(SociPipelineError, match=AMD64.slug):
        _published(work, client)


def test_the_name_of_a_prebuilt_image_may_depend_on_the_platform(tmp_path: Path, client: RegistryClient) -> None:
    work = _branch(tmp_path, client)
    wanted, _ = several_images(tmp_path / "several", ["web-linux-amd64", "other-linux-amd64"]).roots()
    place = f"{tmp_path}/several#ref=web-{{platform}}"
    named = replace(work, request=work.request.model_copy(update={"prebuilt": place}))
    layout = branch.import_built(named, branch.build(named, branch.check_out(named)))
    assert layout.root().digest == wanted.digest
