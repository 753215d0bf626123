import logging
import threading
from pathlib import Path

import pytest

from soci_pipeline.errors import DamagedContent
from soci_pipeline.log import LOGGER
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest
from soci_pipeline.oci.media_types import DOCKER_FOREIGN_LAYER_GZIP, OCI_CONFIG, OCI_LAYER_GZIP
from soci_pipeline.progress import shown_by
from soci_pipeline.registry.errors import AccessRefused, ImmutableTag, RegistryError
from soci_pipeline.registry.push import push_graph
from soci_pipeline.registry.server import ServerSettings
from tests.support.faults import Fault, FaultPlan, Kind
from tests.support.images import image_layout, index_layout, only_manifest
from tests.support.meters import Measured, RecordingDisplay
from tests.support.registries import REPOSITORY, described, leftovers, noise, registry


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return index_layout(tmp_path / "layout", attestations=True)


def several(path: Path, sizes: list[int]) -> Layout:
    """An image with a layer of each size."""
    layout = Layout.create(path)
    layers = tuple(layout.add_bytes(noise(size, seed=size), OCI_LAYER_GZIP) for size in sizes)
    manifest = ImageManifest(config=layout.add_bytes(b"{}", OCI_CONFIG), layers=layers)
    layout.set_roots([layout.add_document(manifest)])
    return layout


def test_a_graph_is_pushed_children_first_and_the_tag_last(tmp_path: Path, layout: Layout) -> None:
    plan = FaultPlan()
    with registry(tmp_path / "registry", faults=plan) as client:
        report = push_graph(layout, layout.root(), client, REPOSITORY, tag="v1")
        assert plan.requests[-1] == ("PUT", f"/v2/{REPOSITORY}/manifests/v1")
        assert client.manifests.head(REPOSITORY, "v1") == layout.root().plain
    puts = [path.rpartition("/")[2] for method, path in plan.requests if method == "PUT" and "/manifests/" in path]
    order = [node.digest for node in layout.walk(layout.root()) if node.digest in puts]
    assert puts == [*order, "v1"]
    assert report.bytes_uploaded == sum(node.size for node in layout.walk(layout.root()))
    assert (report.bytes_skipped, report.blobs_skipped) == (0, 0)


def test_a_push_without_a_tag_goes_by_digest(tmp_path: Path, layout: Layout) -> None:
    with registry(tmp_path / "registry") as client:
        push_graph(layout, layout.root(), client, REPOSITORY)
        assert client.tags.list(REPOSITORY) == ()
        assert client.manifests.head(REPOSITORY, layout.root().digest) is not None


def test_a_second_push_sends_nothing_and_writes_no_tag(tmp_path: Path, layout: Layout) -> None:
    plan = FaultPlan()
    with registry(tmp_path / "registry", faults=plan) as client:
        first = push_graph(layout, layout.root(), client, REPOSITORY, tag="v1")
        plan.replace([])
        second = push_graph(layout, layout.root(), client, REPOSITORY, tag="v1")
    assert {method for method, _ in plan.requests} == {"HEAD"}
    assert (second.bytes_uploaded, second.bytes_skipped) == (0, first.bytes_uploaded)
    assert (second.blobs_uploaded, second.blobs_skipped) == (0, first.blobs_uploaded)


def test_the_largest_blobs_go_first(tmp_path: Path) -> None:
    layout = several(tmp_path / "layout", [1_000, 30_000, 200, 9_000])
    plan = FaultPlan()
    with registry(tmp_path / "registry", faults=plan) as client:
        push_graph(layout, layout.root(), client, REPOSITORY, jobs=1)
    asked = [path.rpartition("/")[2] for method, path in plan.requests if method == "HEAD" and "/blobs/" in path]
    sizes = {described(noise(size, seed=size)).digest: size for size in (1_000, 30_000, 200, 9_000)}
    assert [sizes.get(Digest(digest), 2) for digest in asked] == [30_000, 9_000, 1_000, 200, 2]


def test_progress_comes_to_the_whole_of_what_is_sent_and_of_what_is_there_already(tmp_path: Path) -> None:
    layout = several(tmp_path / "layout", [400_000, 300_000, 200_000, 5])
    whole = sum(node.size for node in layout.walk(layout.root()))
    with registry(tmp_path / "registry") as client:
        for _ in range(2):
            display = RecordingDisplay()
            with shown_by(display):
                push_graph(layout, layout.root(), client, REPOSITORY, tag="v1")
            assert display.steps == [Measured("push", total=whole, done=whole, ended=True)]


def test_a_failure_ends_the_other_uploads_and_moves_no_tag(tmp_path: Path) -> None:
    layout = several(tmp_path / "layout", [900_000, 800_000, 700_000, 600_000])
    # One blob is refused; the others would take their time.
    faults = [
        Fault("POST", "/uploads/", nth=4, status=403, code="DENIED"),
        Fault("PATCH", "/uploads/", kind=Kind.DELAY, seconds=0.3, times=99),
    ]
    plan = FaultPlan(faults)
    with registry(tmp_path / "registry", faults=plan) as client, pytest.raises(AccessRefused):
        push_graph(layout, layout.root(), client, REPOSITORY, tag="v1", jobs=4)
    assert not any("/manifests/" in path for _, path in plan.requests)
    assert len([method for method, _ in plan.requests if method == "PATCH"]) < 8
    assert not leftovers(tmp_path / "registry")


def test_an_interruption_leaves_no_session_and_no_thread(tmp_path: Path) -> None:
    layout = several(tmp_path / "layout", [900_000, 800_000])

    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    display = RecordingDisplay(on_bytes=interrupt)
    with registry(tmp_path / "registry") as client, shown_by(display), pytest.raises(KeyboardInterrupt):
        push_graph(layout, layout.root(), client, REPOSITORY, tag="v1")
    assert not leftovers(tmp_path / "registry")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("push")]


def test_a_blob_that_is_missing_or_damaged_in_the_layout_is_named(tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout")
    layer = only_manifest(layout).layers[0]
    path = layout.blob_path(layer.digest)
    path.chmod(0o644)
    path.write_bytes(b"x" * layer.size)
    with registry(tmp_path / "registry") as client:
        with pytest.raises(DamagedContent, match=layer.digest.hex):
            push_graph(layout, layout.root(), client, REPOSITORY, tag="v1")
        path.unlink()
        with pytest.raises(DamagedContent, match="is missing"):
            push_graph(layout, layout.root(), client, REPOSITORY, tag="v1")
        assert client.manifests.head(REPOSITORY, "v1") is None


def test_a_layer_that_no_registry_holds_is_left_out(tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout")
    manifest = only_manifest(layout)
    foreign = described(b"far away", DOCKER_FOREIGN_LAYER_GZIP).annotated(urls=("https://example.com/base",))
    root = layout.add_document(manifest.replaced(layers=(foreign, *manifest.layers)))
    with registry(tmp_path / "registry") as client:
        push_graph(layout, root, client, REPOSITORY, tag="v1")
        assert not client.blobs.exists(REPOSITORY, foreign)


@pytest.mark.parametrize("referrers", [True, False], ids=["api", "fallback tag"])
def test_a_referrer_is_pushed_with_its_subject_before_the_tag(tmp_path: Path, referrers: bool) -> None:
    layout = image_layout(tmp_path / "layout")
    root = layout.root().plain
    extra = layout.add_document(only_manifest(layout).replaced(layers=(), subject=root, artifact_type="application/x"))
    with registry(tmp_path / "registry", server=ServerSettings(referrers=referrers)) as client:
        for _ in range(2):
            push_graph(layout, root, client, REPOSITORY, tag="v1", extra_roots=[extra])
        assert [entry.digest for entry in client.referrers.list(REPOSITORY, root.digest)] == [extra.digest]


def test_a_referrer_whose_entry_was_never_written_gets_it_from_the_next_push(tmp_path: Path) -> None:
    layout = image_layout(tmp_path / "layout")
    root = layout.root().plain
    extra = layout.add_document(only_manifest(layout).replaced(layers=(), subject=root, artifact_type="application/x"))
    # The manifest arrives, and the push dies before its entry is written.
    plan = FaultPlan([Fault("PUT", "/manifests/sha256-", status=400, code="X", times=99)])
    with registry(tmp_path / "registry", faults=plan, server=ServerSettings(referrers=False)) as client:
        with pytest.raises(RegistryError):
            push_graph(layout, root, client, REPOSITORY, tag="v1", extra_roots=[extra])
        assert client.manifests.head(REPOSITORY, "v1") is None
        plan.replace([])
        push_graph(layout, root, client, REPOSITORY, tag="v1", extra_roots=[extra])
        assert [entry.digest for entry in client.referrers.list(REPOSITORY, root.digest)] == [extra.digest]


def test_an_immutable_tag_is_not_moved_and_takes_the_same_digest_again(tmp_path: Path) -> None:
    one, two = image_layout(tmp_path / "one"), index_layout(tmp_path / "two")
    with registry(tmp_path / "registry", server=ServerSettings(immutable=lambda _: True)) as client:
        for _ in range(2):
            push_graph(one, one.root(), client, REPOSITORY, tag="v1")
        with pytest.raises(ImmutableTag):
            push_graph(two, two.root(), client, REPOSITORY, tag="v1")
        assert client.manifests.head(REPOSITORY, "v1") == one.root().plain


def test_threads_of_a_push_log_where_the_caller_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout = several(tmp_path / "layout", [5_000])
    mine = logging.getLogger("a-run")
    token = LOGGER.set(mine)
    try:
        with registry(tmp_path / "registry") as client, caplog.at_level(logging.DEBUG, "a-run"):
            push_graph(layout, layout.root(), client, REPOSITORY)
    finally:
        LOGGER.reset(token)
    assert any(record.name == "a-run" and "/blobs/uploads/" in record.getMessage() for record in caplog.records)
