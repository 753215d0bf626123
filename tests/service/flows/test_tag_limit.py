"""One publication of an image moves tags at a time; other images do not wait for it."""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import AwaitingRetry, Cancelling, Crashed, Running

from flows.index_image import index_image
from local_stack.prefect_server import PrefectServer
from soci_pipeline.errors import StackError
from soci_pipeline.oci.annotations import REVISION
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.oci.media_types import OCI_INDEX
from soci_pipeline.publish.tag_names import TagNames
from soci_pipeline.publish.target import Target
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.reindex.index import IndexedImage
from soci_pipeline.soci.index.records import SociOptions
from tasks.tags import limit_of, tag_lock
from tasks.tags import tag as move_tags
from tests.support.images import AMD64, add_image, index_layout
from tests.support.published import REPOSITORY, stored, tag, upload
from tests.support.switch import Switch
from tests.support.webhook import until


def _image() -> ImageReference:
    return ImageReference.parse(f"registry.example.com/team/{uuid4().hex[:8]}")


def test_two_publications_of_one_image_do_not_move_tags_at_once() -> None:
    image = _image()
    inside: list[str] = []

    def other() -> None:
        with tag_lock(image):
            inside.append("second")

    thread = threading.Thread(target=other)
    with tag_lock(image):
        thread.start()
        time.sleep(3)
        inside.append("first")
    thread.join(60)
    assert inside == ["first", "second"]


def test_indexing_an_existing_image_moves_its_tag_under_the_same_limit(
    client: RegistryClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOCI_PIPELINE_WORK_FOLDER", str(tmp_path / "work"))
    layout = index_layout(tmp_path / "image")
    tag(client, layout, layout.root(), "v1")
    image = ImageReference(client.registry, REPOSITORY, "v1")
    found: list[IndexedImage] = []

    def index() -> None:
        found.append(index_image(str(image), soci=SociOptions(min_layer_size=0, span_size=1 << 16), verify="off"))

    thread = threading.Thread(target=index)
    with tag_lock(image):
        thread.start()
        # Once the new index is there, only its tag is left to do.
        until(lambda: len(_indexes(tmp_path / "registry")) == 2, seconds=120)
        time.sleep(3)
        before = client.manifests.head(REPOSITORY, "v1")
    thread.join(120)
    after = client.manifests.head(REPOSITORY, "v1")
    assert before is not None
    assert after is not None
    assert before.digest == layout.root().digest
    assert after.digest == found[0].index


def _indexes(folder: Path) -> list[Descriptor]:
    return [each for each in stored(folder).roots() if each.media_type == OCI_INDEX]


@pytest.mark.parametrize("state", [Crashed(), Cancelling(), AwaitingRetry()], ids=lambda state: str(state.name))
def test_a_run_that_is_not_running_any_more_on_the_server_moves_no_tag(state: State[Any]) -> None:
    """It lives all the same: its heartbeats did not arrive, or it does not know yet what was asked of it."""
    moved: list[str] = []
    said: list[str] = []

    @flow(name="publishes")
    def publishes() -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(flow_run.get_id()), state, force=True)
        try:
            with tag_lock(_image()):
                moved.append("tag")
        except StackError as error:
            said.append(error.reason)

    publishes(return_state=True)
    assert moved == []
    assert said == [f"stopped before any tag moved: on the Prefect server, this run is {state.name}, not Running"]


def _deleted() -> None:
    with get_client(sync_client=True) as client:
        client.delete_flow_run(UUID(flow_run.get_id()))


def _started_elsewhere() -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run.get_id()), AwaitingRetry(), force=True)
        client.set_flow_run_state(UUID(flow_run.get_id()), Running(), force=True)


def _crashed() -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run.get_id()), Crashed(), force=True)


@pytest.mark.parametrize(
    ("change", "words"), [(_deleted, "was deleted"), (_started_elsewhere, "was started again")], ids=["gone", "again"]
)
def test_a_run_that_is_deleted_or_started_elsewhere_moves_no_tag(change: Callable[[], None], words: str) -> None:
    moved: list[str] = []
    said: list[str] = []

    @flow(name="publishes")
    def publishes() -> None:
        change()
        try:
            with tag_lock(_image()):
                moved.append("tag")
        except StackError as error:
            said.append(error.reason)

    with contextlib.suppress(ObjectNotFound):  # of Prefect's, which cannot say how a run ended that is gone
        publishes(return_state=True)
    assert moved == []
    assert said == [f"stopped before any tag moved: on the Prefect server, this run {words}"]


def _of_commit(layout: Layout, commit: str) -> Descriptor:
    return layout.add_document(ImageIndex(manifests=(add_image(layout, AMD64),), annotations={REVISION: commit}))


def test_a_run_that_is_crashed_while_commits_are_compared_moves_no_tag(client: RegistryClient, tmp_path: Path) -> None:
    """Comparing them may take minutes, and the first look at the run's state is over by then."""
    layout = Layout.create(tmp_path / "image")
    there, index = _of_commit(layout, "1" * 40), _of_commit(layout, "2" * 40)
    tag(client, layout, there, "v1")
    upload(client, layout, index)

    def crashed_meanwhile(_older: str, _newer: str) -> bool:
        _crashed()
        return False

    image = ImageReference(client.registry, REPOSITORY)
    target = Target(image, client, TagNames(("v1",)), lambda: contextlib.nullcontext(crashed_meanwhile))

    @flow(name="publishes")
    def publishes() -> None:
        with pytest.raises(StackError, match="this run is Crashed, not Running"):
            move_tags(target, index, ())

    publishes(return_state=True)
    assert client.manifests.head(REPOSITORY, "v1") == there.plain


def test_a_run_that_is_running_moves_its_tags() -> None:
    @flow(name="publishes")
    def publishes() -> str:
        with tag_lock(_image()):
            return "moved"

    assert publishes() == "moved"


def test_a_server_that_is_away_when_the_tags_have_moved_fails_nothing() -> None:
    url = urlsplit(PREFECT_API_URL.value() or "")
    moved: list[str] = []
    with Switch(int(url.port or 0)) as switch:
        there = url._replace(netloc=f"127.0.0.1:{switch.port}").geturl()
        switch.on()
        with temporary_settings(updates={PREFECT_API_URL: there, PREFECT_CLIENT_MAX_RETRIES: 0}), tag_lock(_image()):
            moved.append("tag")
            switch.off()
    assert moved == ["tag"]


def test_another_image_does_not_wait() -> None:
    with tag_lock(_image()), tag_lock(_image()):
        pass


def test_the_limit_exists_afterwards_and_is_free() -> None:
    image = _image()
    with tag_lock(image):
        pass
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name(limit_of(image))
    assert (limit.limit, limit.active, limit.active_slots) == (1, True, 0)


def test_a_limit_that_exists_is_no_error_in_the_servers_log(prefect: PrefectServer) -> None:
    image = _image()
    for _ in range(2):
        with tag_lock(image):
            pass
    with get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name(limit_of(image)).limit == 1
    log = (Path(prefect.env["PREFECT_HOME"]).parent / "server.log").read_text()
    assert log
    assert "concurrency_limit_v2" not in log


def test_all_tags_of_one_repository_share_the_limit() -> None:
    image = _image()
    assert limit_of(image.with_tag("a")) == limit_of(image)
    assert limit_of(image) != limit_of(_image())
