import contextlib
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soci_pipeline.builders.import_image import import_image
from soci_pipeline.errors import DamagedContent, InvalidInput, SociPipelineError
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import (
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)
from tests.support.archives import docker_archive, everything_below, oci_archive, raw_tar
from tests.support.examples import examples
from tests.support.images import (
    AMD64,
    ARM64,
    Layer,
    add_attestation,
    add_image,
    gzip_layer,
    image_layout,
    index_layout,
    only_manifest,
    tar_layer,
)
from tests.support.imported import OTHER, PLAIN, imported, stored
from tests.support.tars import gzipped, symlink, tar_of, text


@pytest.mark.parametrize("packed", ["folder", "tar", "tar.gz"])
def test_an_oci_image_keeps_its_digest_however_it_is_packed(tmp_path: Path, packed: str) -> None:
    source = image_layout(tmp_path / "source")
    path = source.path
    if packed != "folder":
        path = oci_archive(tmp_path / "a.tar", source)
    if packed == "tar.gz":
        path.write_bytes(gzipped(path.read_bytes()))
    result = imported(path, tmp_path)
    assert result.root().digest == source.root().digest
    assert result.root().platform == AMD64
    assert len(list(result.walk(result.root()))) == 4


def test_importing_twice_gives_the_same(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "source")
    first = imported(source.path, tmp_path).root()
    assert imported(source.path, tmp_path).root() == first


def test_what_docker_saves_is_compressed_the_same_way_each_time(tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "a.tar", [(AMD64, [PLAIN, OTHER])])
    result = imported(archive, tmp_path)
    manifest = only_manifest(result)
    assert manifest.media_type == OCI_MANIFEST
    assert manifest.config.media_type == OCI_CONFIG
    assert [layer.media_type for layer in manifest.layers] == [OCI_LAYER_GZIP] * 2
    assert gzip.decompress(stored(result)) == PLAIN
    again = import_image(archive, tmp_path / "again", platform=AMD64)
    assert again.root() == result.root()


def test_layers_stay_uncompressed_where_that_is_asked_for(tmp_path: Path) -> None:
    result = imported(docker_archive(tmp_path / "a.tar", [(AMD64, [PLAIN])]), tmp_path, compress=False)
    assert only_manifest(result).layers[0].media_type == OCI_LAYER
    assert stored(result) == PLAIN


def test_uncompressed_layers_of_an_oci_image_are_compressed_and_compressed_ones_kept(tmp_path: Path) -> None:
    layers = [tar_layer({"a": text(50_000)}), gzip_layer({"b": text(50_000)})]
    source = image_layout(tmp_path / "source", layers=layers)
    manifest = only_manifest(imported(source.path, tmp_path))
    assert [layer.media_type for layer in manifest.layers] == [OCI_LAYER_GZIP] * 2
    assert manifest.layers[0].digest != layers[0].digest
    assert manifest.layers[1].digest == layers[1].digest


def test_compressed_layers_in_a_docker_archive_are_kept_bit_by_bit(tmp_path: Path) -> None:
    layer = gzipped(PLAIN)
    path = tmp_path / "a.tar"
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(PLAIN))]}}
    ).encode()
    listing = [{"Config": "c.json", "Layers": ["l"]}]
    path.write_bytes(tar_of({"manifest.json": json.dumps(listing).encode(), "c.json": config, "l": layer}))
    assert stored(imported(path, tmp_path)) == layer


def test_a_layer_that_docker_linked_to_another_is_followed(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "a.tar", [(AMD64, [PLAIN])], extra=[symlink("x/layer.tar", "../manifest.json")])
    assert len(only_manifest(imported(path, tmp_path)).layers) == 1


def test_zstd_layers_are_kept_as_they_are(tmp_path: Path) -> None:
    layer = Layer(b"\x28\xb5\x2f\xfd" + bytes(100), OCI_LAYER_ZSTD)
    source = image_layout(tmp_path / "source", layers=[layer])
    result = imported(source.path, tmp_path)
    assert only_manifest(result).layers[0].media_type == OCI_LAYER_ZSTD
    assert stored(result) == layer.data


def test_docker_media_types_become_oci_ones(tmp_path: Path) -> None:
    source = Layout.create(tmp_path / "source")
    add_image(source, AMD64)
    root = add_image(source, AMD64, [gzip_layer({"a": b"x"})])
    oci = source.read_document(root)
    assert isinstance(oci, ImageManifest)
    docker = oci.replaced(
        media_type=DOCKER_MANIFEST,
        config=oci.config.annotated(media_type=DOCKER_CONFIG),
        layers=tuple(layer.annotated(media_type=DOCKER_LAYER_GZIP) for layer in oci.layers),
    )
    source.set_roots([source.add_document(docker)])
    result = imported(source.path, tmp_path)
    assert only_manifest(result) == oci
    assert result.root().digest == root.digest


@pytest.mark.parametrize("part", ["manifest", "statement"])
def test_an_attestation_that_was_not_saved_is_left_out(
    tmp_path: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = Layout.create(tmp_path / "source")
    image = add_image(source, AMD64)
    attestation = add_attestation(source, image)
    manifest = source.read_document(attestation)
    assert isinstance(manifest, ImageManifest)
    source.set_roots([source.add_document(ImageIndex(manifests=(image, attestation)))])
    lost = attestation.digest if part == "manifest" else manifest.layers[0].digest
    source.blob_path(lost).unlink()
    result = imported(source.path, tmp_path)
    assert result.root().digest == image.digest
    assert f"attestation {attestation.digest} is skipped: the archive does not contain blob {lost}" in caplog.text


def test_attestations_come_along_under_an_image_index(tmp_path: Path) -> None:
    source = index_layout(tmp_path / "source", (AMD64, ARM64), attestations=True)
    result = imported(source.path, tmp_path)
    index = result.read_document(result.root())
    assert isinstance(index, ImageIndex)
    image, attestation = index.manifests
    assert image.platform == AMD64
    assert attestation.annotations["vnd.docker.reference.digest"] == str(image.digest)


def test_attestations_follow_a_manifest_that_had_to_change(tmp_path: Path) -> None:
    source = Layout.create(tmp_path / "source")
    image = add_image(source, AMD64, [tar_layer({"a": b"x"})])
    source.set_roots([source.add_document(ImageIndex(manifests=(image, add_attestation(source, image))))])
    result = imported(source.path, tmp_path)
    index = result.read_document(result.root())
    assert isinstance(index, ImageIndex)
    changed, attestation = index.manifests
    assert changed.digest != image.digest
    assert attestation.annotations["vnd.docker.reference.digest"] == str(changed.digest)
    manifest = result.read_document(attestation)
    assert isinstance(manifest, ImageManifest)
    statement = json.loads(result.read(manifest.layers[0]))
    assert statement["subject"][0]["digest"]["sha256"] == changed.digest.hex


def test_a_layer_that_does_not_hold_what_the_config_says_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(OTHER))]}}
    files = {"manifest.json": json.dumps([{"Config": "c", "Layers": ["l"]}]).encode(), "c": json.dumps(config).encode()}
    path.write_bytes(tar_of(files | {"l": PLAIN}))
    with pytest.raises(DamagedContent, match="the image config says"):
        imported(path, tmp_path)


def test_diff_ids_of_compressed_layers_are_verified_on_request(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "source", layers=[Layer(gzipped(PLAIN) + b"tail")])
    imported(source.path, tmp_path)
    with pytest.raises(DamagedContent):
        import_image(source.path, tmp_path / "checked", platform=AMD64, check_diff_ids=True)


@pytest.mark.parametrize("part", ["index.json", "manifest", "config", "layer"])
def test_a_flipped_bit_anywhere_is_found(tmp_path: Path, part: str) -> None:
    source = image_layout(tmp_path / "source")
    manifest = only_manifest(source)
    name = {
        "manifest": f"blobs/sha256/{source.root().digest.hex}",
        "config": f"blobs/sha256/{manifest.config.digest.hex}",
        "layer": f"blobs/sha256/{manifest.layers[0].digest.hex}",
    }.get(part, part)
    data = bytearray((source.path / name).read_bytes())
    data[len(data) // 2] ^= 1
    with pytest.raises((DamagedContent, InvalidInput)):
        imported(oci_archive(tmp_path / "a.tar", source, changed={name: bytes(data)}), tmp_path)


@pytest.mark.parametrize("change", [None, b"", b"short"])
def test_a_missing_or_short_blob_is_named(tmp_path: Path, change: bytes | None) -> None:
    source = image_layout(tmp_path / "source")
    layer = only_manifest(source).layers[0].digest
    archive = oci_archive(tmp_path / "a.tar", source, changed={f"blobs/sha256/{layer.hex}": change})
    with pytest.raises(DamagedContent, match=layer.hex):
        imported(archive, tmp_path)
    assert Layout.open(tmp_path / "imported").roots() == ()


_HOSTILE = st.sampled_from(
    ["../outside", "/tmp/outside", "a/../../outside", "blobs/sha256/../../../outside", "oci-layout/x", "./index.json"]
)


@settings(max_examples=examples(60))
@given(st.lists(st.tuples(_HOSTILE, st.sampled_from([b"0", b"1", b"2", b"3", b"6"]), _HOSTILE), max_size=4))
def test_whatever_an_archive_names_nothing_is_written_outside(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, bytes, str]]
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    source = image_layout(folder / "source", layers=[gzip_layer({"a": b"x"})])
    archive = oci_archive(folder / "a.tar", source)
    hostile = raw_tar([(name, kind, b"!" if kind == b"0" else b"", link) for name, kind, link in entries])
    # Before the sound entries, without the trailer that would end the archive.
    archive.write_bytes(hostile[: _end(hostile)] + archive.read_bytes())
    before = everything_below(folder)
    with contextlib.suppress(SociPipelineError):
        import_image(archive, folder / "imported", platform=AMD64)
    created = everything_below(folder) - before
    assert all(name == "imported" or name.startswith("imported/") for name in created)


def _end(data: bytes) -> int:
    end = len(data)
    while end >= 512 and not any(data[end - 512 : end]):
        end -= 512
    return end


@pytest.mark.parametrize("behind", [b"more", b"\0"])
def test_a_prebuilt_layer_with_bytes_behind_its_stream_is_refused(tmp_path: Path, behind: bytes) -> None:
    source = image_layout(tmp_path / "source", layers=[Layer(gzipped(PLAIN) + behind)])
    with pytest.raises(DamagedContent):
        imported(source.path, tmp_path, check_diff_ids=True)
