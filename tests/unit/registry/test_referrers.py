from pathlib import Path

import pytest

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest, parse_image_index
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import BrokenAnswer, RegistryError
from soci_pipeline.registry.referrers import add_to_fallback, fallback_tag
from soci_pipeline.registry.server import ServerSettings
from tests.support.registries import QUICK, REPOSITORY, push_image, registry

OLD = ServerSettings(referrers=False)


def referrer_of(client: RegistryClient, kind: str) -> tuple[Descriptor, ImageManifest]:
    subject, manifest = push_image(client, "v1")
    return subject, manifest.replaced(layers=(), subject=subject, artifact_type=kind, annotations={"kind": kind})


def put(client: RegistryClient, document: ImageManifest) -> None:
    client.manifests.put(REPOSITORY, document.descriptor.digest, document.encode(), document.media_type)


@pytest.mark.parametrize("server", [ServerSettings(), OLD], ids=["api", "fallback tag"])
def test_a_referrer_is_found_with_its_type_and_annotations(tmp_path: Path, server: ServerSettings) -> None:
    with registry(tmp_path, server=server) as client:
        subject, document = referrer_of(client, "application/x.one")
        put(client, document)
        put(client, referrer_of(client, "application/x.two")[1])
        found = client.referrers.list(REPOSITORY, subject.digest)
        assert sorted(entry.artifact_type for entry in found) == ["application/x.one", "application/x.two"]
        (one,) = client.referrers.list(REPOSITORY, subject.digest, "application/x.one")
        assert one.annotations == {"kind": "application/x.one"}
        assert (fallback_tag(subject.digest) in client.tags.list(REPOSITORY)) is (server is OLD)


@pytest.mark.parametrize("server", [ServerSettings(), OLD], ids=["api", "fallback tag"])
def test_what_nothing_refers_to_has_no_referrers(tmp_path: Path, server: ServerSettings) -> None:
    with registry(tmp_path, server=server) as client:
        assert client.referrers.list(REPOSITORY, Digest.of(b"nothing")) == ()


def test_the_same_referrer_is_listed_once(tmp_path: Path) -> None:
    with registry(tmp_path, server=OLD) as client:
        subject, document = referrer_of(client, "application/x")
        for _ in range(3):
            put(client, document)
        assert len(client.referrers.list(REPOSITORY, subject.digest)) == 1


class Careless:
    """Manifests whose list of referrers another writer overwrites with what it had read before, some times."""

    def __init__(self, client: RegistryClient, subject: Digest, times: int) -> None:
        self._client = client
        self._tag = fallback_tag(subject)
        self._times = times

    def get(self, repository: str, reference: str | Digest) -> tuple[Descriptor, bytes]:
        return self._client.manifests.get(repository, reference)

    def put(self, repository: str, reference: str | Digest, data: bytes, media_type: str) -> Descriptor:
        stored = self._client.manifests.put(repository, reference, data, media_type)
        if reference == self._tag and self._times > 0:
            self._times -= 1
            theirs = parse_image_index(data).manifests[:-1]
            lost = ImageIndex(manifests=theirs)
            self._client.manifests.put(repository, reference, lost.encode(), lost.media_type)
        return stored


@pytest.mark.parametrize("times", [1, 3])
def test_an_entry_that_another_writer_lost_is_put_back(tmp_path: Path, times: int) -> None:
    with registry(tmp_path, server=OLD) as client:
        subject, first = referrer_of(client, "application/x.first")
        put(client, first)
        second = first.replaced(artifact_type="application/x.second").descriptor
        put_raw(client, first.replaced(artifact_type="application/x.second"))
        add_to_fallback(Careless(client, subject.digest, times), REPOSITORY, subject.digest, second, QUICK)
        assert {entry.digest for entry in client.referrers.list(REPOSITORY, subject.digest)} == {
            first.descriptor.digest,
            second.digest,
        }


def test_an_entry_that_is_lost_again_and_again_is_an_error_that_may_pass(tmp_path: Path) -> None:
    with registry(tmp_path, server=OLD) as client:
        subject, document = referrer_of(client, "application/x")
        put_raw(client, document)
        with pytest.raises(RegistryError, match="does not stay") as caught:
            add_to_fallback(
                Careless(client, subject.digest, 99), REPOSITORY, subject.digest, document.descriptor, QUICK
            )
    assert caught.value.temporary


def put_raw(client: RegistryClient, document: ImageManifest) -> None:
    """Put a referrer's manifest there without an entry, as a writer that was killed in between leaves it."""
    put(client, document)
    subject = document.subject
    assert subject is not None
    empty = ImageIndex(
        manifests=tuple(
            entry
            for entry in client.referrers.list(REPOSITORY, subject.digest)
            if entry.digest != document.descriptor.digest
        )
    )
    client.manifests.put(REPOSITORY, fallback_tag(subject.digest), empty.encode(), empty.media_type)


def test_a_tag_that_stands_for_something_else_is_not_overwritten(tmp_path: Path) -> None:
    with registry(tmp_path, server=OLD) as client:
        subject, document = referrer_of(client, "application/x")
        image, _ = push_image(client, fallback_tag(subject.digest), seed=9)
        with pytest.raises(BrokenAnswer, match="not a list of referrers"):
            put(client, document)
        assert client.manifests.head(REPOSITORY, fallback_tag(subject.digest)) == image
