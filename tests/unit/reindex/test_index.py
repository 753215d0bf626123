"""Indexing images that are in a registry: what is fetched, what changes, and what is left alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.errors import DamagedContent, InvalidInput, TagConflict
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, parse_image_index, parse_image_manifest
from soci_pipeline.oci.media_types import DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, OCI_LAYER_ZSTD
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.tag_mutability import TagMutability
from soci_pipeline.reindex.index import IndexedImage, index_existing
from soci_pipeline.reindex.settings import IndexSettings
from soci_pipeline.soci.index.records import IndexVersion, SociOptions
from soci_pipeline.soci.reasons import Reason
from soci_pipeline.soci.ztoc.store import CacheFolder
from soci_pipeline.verification.mode import VerifyMode
from soci_pipeline.verification.verify import verify
from tests.support.images import AMD64, ARM64, Layer, add_attestation, add_image, gzip_layer, tar_layer, with_address
from tests.support.indexed import SPAN, indexed, some_layers
from tests.support.published import REPOSITORY, flip, tag
from tests.support.tars import Entry, gzipped, noise, tar

OPTIONS = SociOptions(span_size=SPAN, min_layer_size=1000)
SETTINGS = IndexSettings(soci=OPTIONS, verify=VerifyMode.ALL)
SMALL = gzip_layer({"small": b"1"})
# A PAX global header, as git archive writes it, cannot be in a zTOC.
UNSUPPORTED = Layer(
    gzipped(tar([Entry("g", b"52 comment=" + b"0" * 40 + b"\n", kind=b"g"), Entry("f", noise(400_000))]))
)


def image_at(client: RegistryClient, name: str = "v1") -> ImageReference:
    return ImageReference.parse(f"{client.registry}/{REPOSITORY}:{name}")


def published(client: RegistryClient, layout: Layout, *entries: Descriptor, name: str = "v1") -> Descriptor:
    root = layout.add_document(ImageIndex(manifests=entries, annotations={"kept": "yes"}))
    tag(client, layout, root, name)
    return root


def indexed_again(client: RegistryClient, name: str = "v1", **changes: Any) -> IndexedImage:
    return index_existing(client, image_at(client, name), replace(SETTINGS, **changes))


def under(client: RegistryClient, name: str = "v1") -> Digest:
    found = client.manifests.head(REPOSITORY, name)
    assert found is not None
    return found.digest


def index_of(client: RegistryClient, name: str = "v1") -> ImageIndex:
    return parse_image_index(client.manifests.get(REPOSITORY, name)[1])


def layer_sizes(*layers: Layer) -> int:
    return sum(len(layer.data) for layer in layers)


def test_every_platform_is_indexed_attestations_follow_and_the_tag_moves(
    client: RegistryClient, layout: Layout
) -> None:
    amd = add_image(layout, AMD64, [*some_layers(), SMALL])
    arm = add_image(layout, ARM64, [*some_layers(), gzip_layer({"arm": noise(5000)})])
    attestation = add_attestation(layout, amd)
    published(client, layout, amd, attestation, arm)

    found = indexed_again(client)

    assert found.changed
    assert found.index == under(client)
    # Layers that both images have are fetched once, the small one not at all.
    assert found.bytes_fetched == layer_sizes(*some_layers(), gzip_layer({"arm": noise(5000)}))
    assert [[layer.reason for layer in image.layers] for image in found.platforms] == [
        [None, None, Reason.TOO_SMALL],
        [None, None, None],
    ]
    index = index_of(client)
    assert index.annotations == {"kept": "yes"}
    kinds = [entry.artifact_type or str(entry.platform) for entry in index.manifests]
    soci = "application/vnd.amazon.soci.index.v2+json"
    assert kinds == ["linux/amd64", "unknown/unknown", "linux/arm64", soci, soci]
    followed = index.manifests[1]
    assert followed.annotations["vnd.docker.reference.digest"] == index.manifests[0].digest
    statement = parse_image_manifest(client.manifests.get(REPOSITORY, followed.digest)[1]).layers[0]
    subject = json.loads(client.blobs.read(REPOSITORY, statement))["subject"][0]
    assert subject["digest"]["sha256"] == index.manifests[0].digest.hex
    assert verify(client, REPOSITORY, "v1", mode="all", platforms=[AMD64, ARM64]).findings == ()
    assert found.platforms[0].attestations == (followed,)


def test_a_second_run_and_a_run_on_the_result_change_nothing(client: RegistryClient, layout: Layout) -> None:
    published(client, layout, add_image(layout, AMD64, [*some_layers(), SMALL, UNSUPPORTED]))
    first = indexed_again(client)

    again = indexed_again(client)

    assert [layer.reason for layer in first.platforms[0].layers[2:]] == [Reason.TOO_SMALL, Reason.UNSUPPORTED_ENTRY]
    assert (again.changed, again.bytes_fetched, again.bytes_to_fetch) == (False, 0, 0)
    assert again.index == first.index == under(client)


def test_a_layer_that_cannot_be_indexed_is_fetched_once_and_the_others_are_indexed(
    client: RegistryClient, layout: Layout
) -> None:
    published(client, layout, add_image(layout, AMD64, [*some_layers(), UNSUPPORTED]))

    first = indexed_again(client)
    second = indexed_again(client)

    assert first.platforms[0].layers[2].reason is Reason.UNSUPPORTED_ENTRY
    assert first.bytes_fetched == layer_sizes(*some_layers(), UNSUPPORTED)
    assert second.bytes_fetched == 0
    assert not second.changed


def test_an_image_that_a_publication_indexed_is_left_alone(client: RegistryClient, layout: Layout) -> None:
    image = indexed(layout, AMD64)
    assert image.soci_index is not None
    root = published(client, layout, image.manifest, image.soci_index)

    found = indexed_again(client)

    assert (found.changed, found.bytes_fetched, found.index) == (False, 0, root.digest)
    assert found.platforms[0].soci_index == image.soci_index


def test_an_indexed_layer_that_has_an_address_keeps_its_ztoc(client: RegistryClient, layout: Layout) -> None:
    first, second = some_layers()
    image = indexed(layout, AMD64, [with_address(first), second])
    assert image.soci_index is not None
    root = published(client, layout, image.manifest, image.soci_index)

    found = indexed_again(client)

    assert (found.changed, found.up_to_date, found.index) == (False, True, root.digest)
    assert all(layer.ztoc and layer.reason is None for layer in found.platforms[0].layers)


def test_a_layer_that_has_an_address_and_no_ztoc_is_not_fetched(client: RegistryClient, layout: Layout) -> None:
    first, second = some_layers()
    published(client, layout, add_image(layout, AMD64, [with_address(first), second, with_address(SMALL)]))

    found = indexed_again(client)

    assert [layer.reason for layer in found.platforms[0].layers] == [Reason.FOREIGN, None, Reason.FOREIGN]
    assert found.bytes_fetched == layer_sizes(second)


def test_an_indexed_layer_that_is_now_too_small_loses_its_ztoc_whatever_addresses_it_has(
    client: RegistryClient, layout: Layout
) -> None:
    large, small = some_layers()[0], gzip_layer({"small": noise(2000)})
    image = indexed(layout, AMD64, [large, with_address(small)])
    assert image.soci_index is not None
    published(client, layout, image.manifest, image.soci_index)

    found = indexed_again(client, soci=OPTIONS.model_copy(update={"min_layer_size": len(small.data) + 1}))

    assert [layer.reason for layer in found.platforms[0].layers] == [None, Reason.TOO_SMALL]
    assert len(index_of(client).manifests) == 2


def test_other_settings_index_it_anew_in_place(client: RegistryClient, layout: Layout) -> None:
    published(client, layout, add_image(layout, AMD64, some_layers()))
    first = indexed_again(client)

    found = indexed_again(client, soci=SociOptions(span_size=2 * SPAN, min_layer_size=1000))

    assert found.changed
    assert found.bytes_fetched == layer_sizes(*some_layers())
    assert len(index_of(client).manifests) == 2
    assert found.index != first.index
    assert verify(client, REPOSITORY, "v1", mode="all").ok


def test_only_a_new_layer_is_fetched_where_another_tag_has_the_others(client: RegistryClient, layout: Layout) -> None:
    published(client, layout, add_image(layout, AMD64, some_layers()))
    indexed_again(client)
    new = gzip_layer({"new": noise(3000)})
    published(client, layout, add_image(layout, AMD64, [*some_layers(), new]), name="v2")

    found = indexed_again(client, "v2", soci=OPTIONS.model_copy(update={"reuse_from": "v1"}))

    assert found.bytes_fetched == len(new.data)
    assert verify(client, REPOSITORY, "v2", mode="all").ok


def test_known_ztocs_come_from_the_cache_and_from_v1_indexes(
    client: RegistryClient, layout: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "soci_pipeline")
    cache = CacheFolder(tmp_path / "cache")
    published(client, layout, add_image(layout, AMD64, some_layers()))
    index_existing(client, image_at(client), SETTINGS, ztocs=cache)
    published(client, layout, add_image(layout, AMD64, some_layers(), env=("A=b",)), name="v2")
    by_cache = index_existing(client, image_at(client, "v2"), SETTINGS, ztocs=cache)
    said = caplog.text.count("its zTOC is in the cache")

    old = indexed(layout, ARM64, version=IndexVersion.V1)
    assert old.soci_index is not None
    published(client, layout, old.manifest, name="v3")
    tag(client, layout, old.soci_index, "v3-soci")
    by_referrer = indexed_again(client, "v3")

    assert (by_cache.changed, by_cache.bytes_fetched, said) == (True, 0, len(some_layers()))
    assert (by_referrer.changed, by_referrer.bytes_fetched) == (True, 0)
    assert verify(client, REPOSITORY, "v3", mode="all").ok


def test_with_a_suffix_the_tag_stays_and_a_second_event_does_nothing(client: RegistryClient, layout: Layout) -> None:
    root = published(client, layout, add_image(layout, AMD64, [*some_layers(), UNSUPPORTED]))
    immutable = TagMutability.of("IMMUTABLE")

    first = indexed_again(client, suffix="-soci", mutability=immutable)
    second = indexed_again(client, suffix="-soci", mutability=immutable)
    on_result = indexed_again(client, "v1-soci", mutability=TagMutability())
    by_a_rule_for_every_tag = indexed_again(client, "v1-soci", suffix="-soci", mutability=immutable)

    assert under(client) == root.digest
    assert under(client, "v1-soci") == first.index
    assert [record.tag for record in first.tags] == ["v1-soci"]
    assert (second.changed, second.bytes_fetched, second.index) == (False, 0, first.index)
    assert (on_result.changed, on_result.bytes_fetched) == (False, 0)
    assert (by_a_rule_for_every_tag.changed, by_a_rule_for_every_tag.tags) == (False, ())
    assert set(client.tags.list(REPOSITORY)) == {"v1", "v1-soci"}
    with pytest.raises(TagConflict, match="immutable"):
        indexed_again(client, mutability=immutable)


def test_a_dry_run_fetches_and_writes_nothing(client: RegistryClient, layout: Layout) -> None:
    root = published(client, layout, add_image(layout, AMD64, [*some_layers(), SMALL]))

    found = indexed_again(client, dry_run=True)

    assert (found.changed, found.bytes_fetched, found.index) == (False, 0, root.digest)
    assert found.bytes_to_fetch == found.lazy_layer_bytes == layer_sizes(*some_layers())
    assert under(client) == root.digest


def test_a_single_docker_image_becomes_an_index_of_one_with_oci_types(client: RegistryClient, layout: Layout) -> None:
    layers = [Layer(some_layers()[0].data, DOCKER_LAYER_GZIP)]
    plain = add_image(layout, AMD64, layers)
    manifest = parse_image_manifest(layout.read(plain))
    docker = manifest.replaced(media_type=DOCKER_MANIFEST, config=manifest.config.annotated(media_type=DOCKER_CONFIG))
    tag(client, layout, layout.add_document(docker), "v1")

    found = indexed_again(client)

    assert found.changed
    image, soci = index_of(client).manifests
    assert image.platform == soci.platform == AMD64
    stored = parse_image_manifest(client.manifests.get(REPOSITORY, image.digest)[1])
    assert stored.config.media_type == "application/vnd.oci.image.config.v1+json"
    assert stored.layers == docker.layers
    assert verify(client, REPOSITORY, "v1", mode="all").ok


def test_an_image_with_nothing_to_index_stays_as_it_is(client: RegistryClient, layout: Layout) -> None:
    zstd = Layer(b"\x28\xb5\x2f\xfd" + noise(5000), OCI_LAYER_ZSTD)
    root = published(client, layout, add_image(layout, AMD64, [SMALL, zstd]))

    found = indexed_again(client)

    assert (found.changed, found.bytes_fetched) == (False, 0)
    assert [layer.reason for layer in found.platforms[0].layers] == [Reason.TOO_SMALL, Reason.ZSTD]
    assert under(client) == root.digest


def test_other_entries_and_images_that_are_done_stay_byte_for_byte(client: RegistryClient, layout: Layout) -> None:
    done = indexed(layout, AMD64)
    assert done.soci_index is not None
    plain = add_image(layout, ARM64, [tar_layer({"arm": noise(5000)})])
    other = layout.add_document(ImageIndex()).annotated(annotations={"what": "else"})
    published(client, layout, other, done.manifest, plain, done.soci_index)

    indexed_again(client)

    entries = index_of(client).manifests
    assert entries[:2] == (other, done.manifest)
    assert entries[3] == done.soci_index
    assert len(entries) == 5


def test_a_damaged_layer_moves_no_tag(client: RegistryClient, layout: Layout, tmp_path: Path) -> None:
    image = add_image(layout, AMD64, some_layers())
    root = published(client, layout, image)
    layer = parse_image_manifest(layout.read(image)).layers[1]
    flip(tmp_path / "registry" / "team+app" / "blobs" / "sha256" / layer.digest.hex, 2000)

    with pytest.raises(DamagedContent, match=layer.digest):
        indexed_again(client)
    assert under(client) == root.digest


def test_a_tag_that_moved_meanwhile_is_left_where_it_is(client: RegistryClient, layout: Layout) -> None:
    published(client, layout, add_image(layout, AMD64, some_layers()))
    newer = layout.add_document(ImageIndex(manifests=(add_image(layout, AMD64, [SMALL]),)))

    class Overtaken(CacheFolder):
        def get(self, *key: Any) -> bytes | None:
            tag(client, layout, newer, "v1")
            return None

    with pytest.raises(TagConflict, match="moved from"):
        index_existing(client, image_at(client), SETTINGS, ztocs=Overtaken(Path("/nonexistent")))
    assert under(client) == newer.digest


def test_by_digest_the_result_has_no_tag(client: RegistryClient, layout: Layout) -> None:
    root = published(client, layout, add_image(layout, AMD64, some_layers()))

    found = index_existing(client, image_at(client).with_digest(root.digest), SETTINGS)

    assert found.changed
    assert found.tags == ()
    assert under(client) == root.digest
    assert verify(client, REPOSITORY, found.index, mode="all").ok


def test_what_cannot_be_meant_is_refused(client: RegistryClient, layout: Layout) -> None:
    image = add_image(layout, AMD64, some_layers())
    root = published(client, layout, image)
    reference = image_at(client)

    with pytest.raises(InvalidInput, match="does not identify an image"):
        index_existing(client, reference.without_target(), SETTINGS)
    with pytest.raises(InvalidInput, match="suffix requires a tag"):
        index_existing(client, reference.with_digest(root.digest), replace(SETTINGS, suffix="-x"))
    with pytest.raises(InvalidInput, match="not a valid tag"):
        index_existing(client, reference, replace(SETTINGS, suffix=" x"))
    v1 = SociOptions(version=IndexVersion.V1)
    with pytest.raises(InvalidInput, match="v2 SOCI index"):
        index_existing(client, reference, replace(SETTINGS, soci=v1))
    client.manifests.delete(REPOSITORY, image.digest)
    with pytest.raises(InvalidInput, match="because it is incomplete"):
        index_existing(client, reference, SETTINGS)


def test_the_tag_stays_for_a_caller_that_may_not_move_it_any_more(client: RegistryClient, layout: Layout) -> None:
    root = published(client, layout, add_image(layout, AMD64, some_layers()))

    def refuse() -> None:
        raise InvalidInput("not any more")

    with pytest.raises(InvalidInput, match="not any more"):
        index_existing(client, image_at(client), SETTINGS, confirm=refuse)
    assert under(client) == root.digest
