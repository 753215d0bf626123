"""The gate over the content of layers and zTOCs: one flipped bit anywhere is found and named."""

from dataclasses import replace
from typing import Any

import pytest

from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import parse_image_manifest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.gzip.checkpoints import Checkpoint
from soci_pipeline.soci.ztoc.codec import Ztoc, decode
from soci_pipeline.soci.ztoc.sample import MOST_IN_MEMORY
from tests.support.images import AMD64, ARM64, gzip_layer, tar_layer, with_address
from tests.support.indexed import indexed, some_layers, with_checkpoint, with_entry
from tests.support.published import REPOSITORY, flip, upload
from tests.support.tars import text
from tests.support.verified import faults, layers_of, published, verified, ztocs_of

MODES = ("sample", "all")


@pytest.mark.parametrize("position", [5, 20_000, 200_000, -3])
def test_a_flipped_bit_anywhere_in_a_layer_is_found_by_all(
    client: RegistryClient, layout: Layout, kept: Layout, position: int
) -> None:
    image = indexed(layout, AMD64)
    digest = published(client, layout, image)
    for layer in layers_of(layout, image):
        flip(kept.blob_path(layer.digest), position if abs(position) < layer.size else -9)

    found = faults(client, digest)

    for layer in layers_of(layout, image):
        assert f"linux/amd64 layer {layer.digest}: " in found
        assert f"{layer.digest} of {REPOSITORY} has the digest" in found


def test_a_flipped_bit_in_a_span_that_a_sample_reads_is_found(
    client: RegistryClient, layout: Layout, kept: Layout
) -> None:
    image = indexed(layout, AMD64)
    digest = published(client, layout, image)
    gzip, plain = layers_of(layout, image)
    flip(kept.blob_path(gzip.digest), -20)
    flip(kept.blob_path(plain.digest), 600)

    found = faults(client, digest, "sample")

    assert f"layer {plain.digest} span 0: span 0 has the digest" in found
    assert f"layer {gzip.digest} span " in found


@pytest.mark.parametrize("mode", MODES)
def test_a_flipped_bit_in_a_ztoc_is_found_by_its_digest(
    client: RegistryClient, layout: Layout, kept: Layout, mode: str
) -> None:
    image = indexed(layout, AMD64)
    digest = published(client, layout, image)
    toc, checkpoint = ztocs_of(layout, image)
    flip(kept.blob_path(toc.digest), 40_000 if toc.size > 50_000 else 100)
    flip(kept.blob_path(checkpoint.digest), -100)

    found = faults(client, digest, mode)

    assert f"zTOC {toc.digest}: blob {toc.digest}" in found
    assert f"zTOC {checkpoint.digest}: blob {checkpoint.digest}" in found


def test_damage_to_an_indexed_layer_that_has_an_address_is_found_by_all(
    client: RegistryClient, layout: Layout, kept: Layout
) -> None:
    image = indexed(layout, AMD64, [with_address(layer) for layer in some_layers()])
    digest = published(client, layout, image)
    sound = verified(client, digest)
    layer, ztoc = layers_of(layout, image)[0], ztocs_of(layout, image)[1]
    flip(kept.blob_path(layer.digest), 20_000)
    flip(kept.blob_path(ztoc.digest), -100)

    found = faults(client, digest)

    assert sound.findings == ()
    assert sound.checked["bytes"] == sum(each.size for each in layers_of(layout, image))
    assert f"{layer.digest} of {REPOSITORY} has the digest" in found
    assert f"zTOC {ztoc.digest}: blob {ztoc.digest}" in found


@pytest.mark.parametrize("mode", MODES)
def test_a_layer_that_has_an_address_and_no_ztoc_is_not_missed(
    client: RegistryClient, layout: Layout, kept: Layout, mode: str
) -> None:
    elsewhere = with_address(gzip_layer({"base": text(5000)}))
    digest = published(client, layout, indexed(layout, AMD64, [*some_layers(), elsewhere], indexed_layers=[0, 1]))
    kept.blob_path(elsewhere.digest).unlink()

    assert faults(client, digest, mode) == ""


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", b"etc/conf.d/x", "name 'etc/conf.d/x', in the layer 'etc/conf.d/3'"),
        ("mode", 0o777, "mode '511', in the layer '420'"),
        ("uid", 1, "uid '1', in the layer '0'"),
        ("mod_time", b"2023-11-14T22:13:21Z", "mod_time '2023-11-14T22:13:21Z', in the layer '2023-11-14T22:13:20Z'"),
        ("link", b"x", "link 'x', in the layer ''"),
        ("size", 2099, "size '2099', in the layer '2100'"),
        ("pax", ((b"SCHILY.xattr.user.a", b"b"),), "pax"),
    ],
)
def test_a_changed_entry_under_right_digests_is_found(
    client: RegistryClient, layout: Layout, field: str, value: Any, said: str
) -> None:
    image = indexed(layout, AMD64, tamper=with_entry(3, lambda entry: entry._replace(**{field: value})))
    digest = published(client, layout, image)

    whole = faults(client, digest)
    # Entry 3 is in the first span, which a sample reads.
    sampled = faults(client, digest, "sample")

    assert f"zTOC {ztocs_of(layout, image)[0].digest}: entry 3, 'etc/conf.d/3': " in whole
    assert said in whole
    assert said in sampled


def test_a_time_written_in_another_zone_is_no_fault(client: RegistryClient, layout: Layout) -> None:
    elsewhere = with_entry(3, lambda entry: entry._replace(mod_time=b"2023-11-15T00:13:20+02:00"))
    digest = published(client, layout, indexed(layout, AMD64, tamper=elsewhere))

    assert faults(client, digest) == ""
    assert faults(client, digest, "sample") == ""


def test_an_entry_that_is_left_out_or_made_up_is_found(client: RegistryClient, layout: Layout) -> None:
    def without(ztoc: Ztoc) -> Ztoc:
        return replace(ztoc, entries=ztoc.entries[:5] + ztoc.entries[6:])

    def without_the_last(ztoc: Ztoc) -> Ztoc:
        return replace(ztoc, entries=ztoc.entries[:-1])

    left_out = published(client, layout, indexed(layout, AMD64, tamper=without))
    cut = published(client, layout, indexed(layout, AMD64, tamper=without_the_last))

    assert "entry 5, " in faults(client, left_out)
    assert "entry 5, 'etc/conf.d/6': name" in faults(client, left_out, "sample")
    assert "entry 41, 'usr/bin/app', is missing" in faults(client, cut)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda point: point._replace(window=b"x" + point.window[1:]), "the window differs from its byte 0 on"),
        (lambda point: point._replace(bits=point.bits ^ 1), "bits is"),
        (lambda point: point._replace(compressed=point.compressed + 1), "compressed offset is"),
        (lambda point: point._replace(uncompressed=point.uncompressed + 1), "uncompressed offset is"),
    ],
)
def test_a_changed_checkpoint_under_right_digests_is_found(
    client: RegistryClient, layout: Layout, change: object, said: str
) -> None:
    digest = published(client, layout, indexed(layout, AMD64, tamper=with_checkpoint(2, change)))  # type: ignore[arg-type]

    found = faults(client, digest)

    assert "checkpoint 2: " in found
    assert said in found


@pytest.mark.parametrize("number", [0, -1])
def test_a_checkpoint_that_a_sample_starts_from_is_tried(client: RegistryClient, layout: Layout, number: int) -> None:
    def other_bits(point: Checkpoint) -> Checkpoint:
        return point._replace(bits=(point.bits + 3) % 8)

    def no_window(point: Checkpoint) -> Checkpoint:
        return point._replace(window=bytes(32768))

    text_alone = [gzip_layer({f"etc/{number}": text(9000, seed=number) for number in range(40)})]
    wrong_bits = published(client, layout, indexed(layout, AMD64, tamper=with_checkpoint(number, other_bits)))
    wrong_window = indexed(layout, AMD64, text_alone, tamper=with_checkpoint(-1, no_window))

    assert " span " in faults(client, wrong_bits, "sample")
    assert "there is no tar header at the position of entry" in faults(
        client, published(client, layout, wrong_window), "sample"
    )


def test_a_span_digest_that_is_not_its_bytes_is_found(client: RegistryClient, layout: Layout) -> None:
    def spoilt(ztoc: Ztoc) -> Ztoc:
        return replace(ztoc, span_digests=(Digest.of(b"no"), *ztoc.span_digests[1:]))

    digest = published(client, layout, indexed(layout, AMD64, tamper=spoilt))

    assert f"the digest of span 0 is {Digest.of(b'no')} instead of" in faults(client, digest)
    assert "span 0: span 0 has the digest sha256:" in faults(client, digest, "sample")


@pytest.mark.parametrize("mode", MODES)
def test_a_ztoc_of_another_layer_and_another_span_size_are_found(
    client: RegistryClient, layout: Layout, mode: str
) -> None:
    other = tar_layer({"other": b"x" * 5000})
    crossed = indexed(layout, ARM64, [other])

    def of_another_layer(_: Ztoc) -> Ztoc:
        return decode(layout.read(ztocs_of(layout, crossed)[0]))

    digest = published(client, layout, indexed(layout, AMD64, tamper=of_another_layer))

    found = faults(client, digest, mode)

    assert "it is for a layer of" in found


def test_a_config_with_another_diff_id_is_found(client: RegistryClient, layout: Layout) -> None:
    image = indexed(layout, AMD64)
    manifest = parse_image_manifest(layout.read(image.manifest))
    config = layout.read(manifest.config).replace(b'"diff_ids": ["sha256:', b'"diff_ids": ["sha256:' + b"0" * 64, 1)
    cut = config.index(b"0" * 64) + 64
    config = config[:cut] + config[cut + 64 :]
    changed = manifest.replaced(config=layout.add_bytes(config, manifest.config.media_type), annotations={})
    root = layout.add_document(changed)
    upload(client, layout, root)

    assert f"the diff id in the config is sha256:{'0' * 64}" in faults(client, root.digest)


def test_a_ztoc_that_is_none_is_named(client: RegistryClient, layout: Layout, kept: Layout) -> None:
    image = indexed(layout, AMD64)
    assert image.soci_index is not None
    junk = layout.add_bytes(b"not a zTOC at all", "application/octet-stream")
    soci = parse_image_manifest(layout.read(image.soci_index))
    wrong = layout.add_document(
        soci.replaced(layers=(junk.annotated(annotations=soci.layers[0].annotations), soci.layers[1]))
    )
    manifest = parse_image_manifest(layout.read(image.manifest))
    root = layout.add_document(manifest.replaced(annotations={"com.amazon.soci.index-digest": str(wrong.digest)}))
    upload(client, layout, wrong, root)

    assert f"zTOC {junk.digest}: not a valid zTOC" in faults(client, root.digest, "sample")
    assert kept.has(junk)


def test_a_span_that_would_fill_the_memory_is_counted_by_the_sample_and_read_by_all(
    client: RegistryClient, layout: Layout
) -> None:
    image = indexed(layout, AMD64, [gzip_layer({"swap": bytes(MOST_IN_MEMORY)})], span_size=1 << 40)
    digest = published(client, layout, image)

    sampled, whole = verified(client, digest, "sample"), verified(client, digest, "all")

    assert (sampled.ok, sampled.checked["spans_too_large"], sampled.checked.get("spans")) == (True, 1, None)
    assert (whole.ok, whole.checked["spans"]) == (True, 1)
