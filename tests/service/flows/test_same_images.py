"""The look at what is published already, inside a flow: what it answers, and what the run shows."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from prefect import flow
from prefect.client.orchestration import get_client

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.publish.records import PublishedImage
from soci_pipeline.publish.tag_names import TagNames
from soci_pipeline.publish.target import Target
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.manifests import Manifests
from soci_pipeline.registry.reference import ImageReference
from tasks.same_images import find_same
from tests.support.images import AMD64, add_image, gzip_layer
from tests.support.published import REPOSITORY, tag, upload


@flow(name="a-night", validate_parameters=False)
def night(target: Target, index: Descriptor) -> PublishedImage | None:
    """What a publication does between its join and its tags."""
    return find_same(target, "nightly", index, ())


class Overtaken(Manifests):
    """Manifests of a client right behind whose first look at a tag another moves it."""

    move: Callable[[], None] | None = None

    def head(self, repository: str, reference: str | Digest) -> Descriptor | None:
        found = super().head(repository, reference)
        self._moved(reference)
        return found

    def get(self, repository: str, reference: str | Digest) -> tuple[Descriptor, bytes]:
        found = super().get(repository, reference)
        self._moved(reference)
        return found

    def _moved(self, reference: str | Digest) -> None:
        if reference == "nightly" and self.move is not None:
            self.move()
            self.move = None


def a_target(client: RegistryClient) -> Target:
    image = ImageReference(client.registry, REPOSITORY)
    return Target(image, client, TagNames(("nightly",)), lambda: nullcontext(lambda _older, _newer: None))


def an_index(client: RegistryClient, layout: Layout, content: bytes, made: str) -> Descriptor:
    entry = add_image(layout, AMD64, [gzip_layer({"app": content})])
    index = layout.add_document(ImageIndex(manifests=(entry,), annotations={"made": made}))
    upload(client, layout, index)
    return index


def test_the_digest_that_is_named_is_the_one_that_was_compared(client: RegistryClient, tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    tag(client, layout, an_index(client, layout, b"other", "yesterday"), "nightly")
    same = an_index(client, layout, b"1", "tonight")

    with RegistryClient(client.registry, settings=client.settings) as overtaken:
        overtaken.manifests = manifests = Overtaken(overtaken._operations)
        manifests.move = lambda: tag(client, layout, same, "nightly")
        assert night(a_target(overtaken), an_index(client, layout, b"1", "today")) is None


def test_the_same_images_are_answered_with_what_is_there_and_shown_as_unchanged(
    client: RegistryClient, tmp_path: Path
) -> None:
    layout = Layout.create(tmp_path / "layout")
    target = a_target(client)
    there = an_index(client, layout, b"1", "yesterday")
    assert night(target, there) is None
    tag(client, layout, there, "nightly")

    same = night(target, an_index(client, layout, b"1", "today"))
    assert same is not None
    assert (same.index, same.same_as, same.tags) == (there.digest, "nightly", ())
    assert same.reference == f"{target.image}@{there.digest}"
    assert night(target, an_index(client, layout, b"2", "today")) is None

    with get_client(sync_client=True) as prefect:
        shown = [str(each.data) for each in prefect.read_artifacts() if "Unchanged" in str(each.data)]
    assert len(shown) == 1
    assert str(there.digest) in shown[0]
