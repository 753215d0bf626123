"""Converting images: what follows, what stays, what is skipped, and what fails."""

import base64
import io
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from soci_pipeline.cli import main
from soci_pipeline.errors import DamagedContent, ExitCode, HostileArchive, InvalidInput, LayerNotIndexable
from soci_pipeline.oci.annotations import IMAGE_MANIFEST_DIGEST, REFERENCE_DIGEST, is_attestation
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import OCI_LAYER_GZIP, OCI_LAYER_ZSTD, SOCI_INDEX_V2
from soci_pipeline.oci.platform import Platform
from soci_pipeline.soci.gzip.checkpoints import GzipCheckpoints
from soci_pipeline.soci.index.convert import Conversion, convert
from soci_pipeline.soci.index.records import IndexVersion, SociOptions
from soci_pipeline.soci.limits import Limits
from soci_pipeline.soci.reasons import Reason, explained_reason
from soci_pipeline.soci.ztoc.build import build_ztoc
from soci_pipeline.soci.ztoc.codec import Ztoc, decode, encode
from soci_pipeline.soci.ztoc.store import CacheFolder
from tests.support.images import (
    AMD64,
    ARM64,
    Layer,
    add_artifact,
    add_attestation,
    add_image,
    as_artifact,
    gzip_layer,
    image_layout,
    index_layout,
    tar_layer,
    with_address,
)
from tests.support.tars import gzipped, tar_of, text

SMALL = SociOptions(min_layer_size=0, span_size=50_000)
V1 = SMALL.model_copy(update={"version": IndexVersion.V1})
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


def children(conversion: Conversion) -> tuple[Descriptor, ...]:
    document = conversion.layout.read_document(conversion.root)
    assert isinstance(document, ImageIndex)
    return document.manifests


def manifest_of(layout: Layout, descriptor: Descriptor) -> ImageManifest:
    document = layout.read_document(descriptor)
    assert isinstance(document, ImageManifest)
    return document


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_attestations_follow_their_image(tmp_path: Path) -> None:
    result = convert(index_layout(tmp_path / "source", attestations=True), tmp_path / "result", options=SMALL)
    images = {str(image.manifest.digest): image for image in result.images}
    attested = [child for child in children(result) if is_attestation(child)]
    assert {child.annotations[REFERENCE_DIGEST] for child in attested} == set(images)
    for child in attested:
        manifest = manifest_of(result.layout, child)
        (layer,) = manifest.layers
        statement = json.loads(result.layout.read(layer))
        named = f"sha256:{statement['subject'][0]['digest']['sha256']}"
        assert named == child.annotations[REFERENCE_DIGEST]
        assert layer.annotations["in-toto.io/predicate-type"]
        config = json.loads(result.layout.read(manifest.config))
        assert config["rootfs"]["diff_ids"] == [str(layer.digest)]
        assert images[named].attestations == (child,)


@pytest.mark.parametrize("annotated", [True, False])
@pytest.mark.parametrize("order", [*itertools.permutations(range(4))])
def test_artifacts_of_artifacts_follow_in_any_order(
    layout: Layout, tmp_path: Path, order: Sequence[int], annotated: bool
) -> None:
    image = add_image(layout, AMD64, [gzip_layer({"a": text(5000)})])
    attestation = as_artifact(layout, add_attestation(layout, image), image)
    signature = add_artifact(layout, "example/signature", subject=attestation)
    stamp = add_artifact(layout, "example/stamp", subject=signature)
    named = {REFERENCE_DIGEST: str(image.digest)} if annotated else {}
    entries = (image, attestation, signature.annotated(annotations=named), stamp.annotated(annotations=named))
    layout.set_roots([layout.add_document(ImageIndex(manifests=tuple(entries[at] for at in order)))])
    result = convert(layout, tmp_path / "result", options=SMALL)
    listed = {child.digest: child for child in children(result)}
    subjects = [manifest_of(result.layout, child).subject for child in listed.values()]
    found = [subject.digest for subject in subjects if subject is not None]
    assert len(found) == len(set(found)) == 3
    assert set(found) < set(listed)
    # Nothing is left of the way there.
    manifests = {each.digest for each in result.layout.referrers(result.root) if each.digest not in listed}
    assert manifests == set()


def test_a_signed_statement_stays_as_it_is(tmp_path: Path) -> None:
    source = Layout.create(tmp_path / "source")
    image = add_image(source, AMD64)
    payload = base64.b64encode(json.dumps({"_type": "https://in-toto.io/Statement/v0.1"}).encode()).decode()
    signed = {"payloadType": "application/vnd.in-toto+json", "payload": payload, "signatures": [{"sig": "c2ln"}]}
    attestation = add_attestation(source, image, payload=json.dumps(signed).encode())
    source.set_roots([source.add_document(ImageIndex(manifests=(image, attestation)))])
    result = convert(source, tmp_path / "result", options=SMALL)
    (followed,) = [child for child in children(result) if is_attestation(child)]
    assert followed.digest == attestation.digest
    assert followed.annotations[REFERENCE_DIGEST] == str(result.images[0].manifest.digest) != str(image.digest)


def test_one_layer_that_cannot_be_indexed_leaves_the_others_indexed(tmp_path: Path) -> None:
    small = gzip_layer({"tiny": b"t"})
    layers = [
        gzip_layer({"a": text(200_000)}),
        Layer(b"\x28\xb5\x2f\xfd" * 2000, OCI_LAYER_ZSTD),
        Layer(gzipped(tar_of({"b": text(90_000)})) + b"more"),
        Layer(gzipped(tar_of({"f": text(91_000)})), FOREIGN),
        small,
        tar_layer({"c": text(50_000)}),
    ]
    options = SMALL.model_copy(update={"min_layer_size": len(small.data) + 1})
    result = convert(image_layout(tmp_path / "source", layers=layers), tmp_path / "result", options=options)
    (image,) = result.images
    assert [layer.reason for layer in image.layers] == [None, "zstd", "trailing-bytes", "foreign", "too-small", None]
    assert [layer.digest for layer in image.layers] == [layer.digest for layer in layers]
    assert image.soci_index is not None
    soci_index = manifest_of(result.layout, image.soci_index)
    assert [layer.digest for layer in soci_index.layers] == [layer.ztoc for layer in image.layers if layer.ztoc]


@pytest.mark.parametrize("behind", [b"more", b"\0", b"\0" * 512, b"\x1f"])
def test_bytes_behind_a_gzip_stream_are_said_to_keep_containerd_from_unpacking(
    behind: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layer = Layer(gzipped(tar_of({"b": text(90_000)})) + behind)
    result = convert(image_layout(tmp_path / "source", layers=[layer]), tmp_path / "result", options=SMALL)
    (record,) = result.images[0].layers
    assert record.reason is Reason.TRAILING_BYTES
    assert "containerd cannot unpack it without pigz" in explained_reason(record.reason)
    [said] = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert f"layer {layer.digest} may prevent the image from starting" in said
    with pytest.raises(LayerNotIndexable) as caught:
        build_ztoc(io.BytesIO(layer.data), OCI_LAYER_GZIP)
    for words in (said, str(caught.value)):
        assert "Compress the layer again" in words
        assert "usable" not in words


def test_a_small_layer_that_no_size_would_help_has_the_lasting_reason(tmp_path: Path) -> None:
    layers = [Layer(b"\x28\xb5\x2f\xfd" * 20, OCI_LAYER_ZSTD), Layer(b"?" * 80, "text/plain")]
    result = convert(image_layout(tmp_path / "source", layers=layers), tmp_path / "result", options=SociOptions())
    assert [layer.reason for layer in result.images[0].layers] == ["zstd", "foreign"]


@pytest.mark.parametrize(("there", "reason"), [(True, None), (False, "foreign")])
def test_a_layer_with_an_address_is_indexed_where_it_is_there_too(
    tmp_path: Path, there: bool, reason: str | None
) -> None:
    layers = [with_address(gzip_layer({"base": text(200_000)})), gzip_layer({"app": text(90_000)})]
    source = image_layout(tmp_path / "source", layers=layers)
    if not there:
        source.blob_path(layers[0].digest).unlink()
    result = convert(source, tmp_path / "result", options=SMALL)
    assert [layer.reason for layer in result.images[0].layers] == [reason, None]


def test_an_image_without_a_layer_to_index_stays_as_it_is(tmp_path: Path) -> None:
    source = index_layout(tmp_path / "source", attestations=True)
    result = convert(source, tmp_path / "result", options=SociOptions())
    assert result.root.digest == source.root().digest
    assert all(image.soci_index is None for image in result.images)


def damaged_layer() -> Layer:
    data = bytearray(gzipped(tar_of({"a": text(100_000)})))
    data[-8] ^= 1
    return Layer(bytes(data))


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_damaged_layer_fails_with_its_digest(tmp_path: Path, jobs: int) -> None:
    damaged = damaged_layer()
    source = image_layout(tmp_path / "source", layers=[gzip_layer({"b": text(200_000)}), damaged])
    with pytest.raises(DamagedContent, match=str(damaged.digest)):
        convert(source, tmp_path / "result", options=SMALL, jobs=jobs)
    assert not (tmp_path / "result").exists()


def test_a_failure_leaves_what_was_in_the_destination_before(tmp_path: Path) -> None:
    kept = image_layout(tmp_path / "result", layers=[gzip_layer({"a": b"kept"})])
    source = image_layout(tmp_path / "source", layers=[damaged_layer()])
    with pytest.raises(DamagedContent):
        convert(source, tmp_path / "result", options=SMALL)
    assert kept.has(kept.root())


def test_a_failure_leaves_no_destination(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = damaged_layer()
    image_layout(tmp_path / "source", layers=[damaged])
    before = files(tmp_path)
    code = main(["convert", str(tmp_path / "source"), str(tmp_path / "result"), "--min-layer-size", "0"])
    assert code == ExitCode.DAMAGED_CONTENT
    assert str(damaged.digest) in capsys.readouterr().err
    assert files(tmp_path) == before
    assert not (tmp_path / "result").exists()


def test_a_layer_past_a_limit_fails_with_its_digest(tmp_path: Path) -> None:
    bomb = gzip_layer({"zeros": bytes(5 << 20)})
    source = image_layout(tmp_path / "source", layers=[bomb])
    with pytest.raises(HostileArchive, match=str(bomb.digest)):
        convert(source, tmp_path / "result", options=SMALL, limits=Limits(uncompressed=1 << 20))


@pytest.mark.parametrize("options", [SMALL, V1], ids=["v2", "v1"])
def test_the_number_of_jobs_does_not_show(tmp_path: Path, options: SociOptions) -> None:
    source = index_layout(tmp_path / "source", attestations=True)
    for jobs in (1, 4):
        convert(source, tmp_path / f"jobs-{jobs}", options=options, jobs=jobs)
    assert files(tmp_path / "jobs-1") == files(tmp_path / "jobs-4")


def test_converting_again_changes_nothing(tmp_path: Path) -> None:
    source = index_layout(tmp_path / "source", attestations=True)
    first = convert(source, tmp_path / "first", options=SMALL)
    second = convert(first.layout, tmp_path / "second", options=SMALL)
    assert second.root.digest == first.root.digest
    assert files(tmp_path / "first") == files(tmp_path / "second")


def test_v1_leaves_the_digests_of_images(tmp_path: Path) -> None:
    source = index_layout(tmp_path / "source", attestations=True)
    result = convert(source, tmp_path / "result", options=V1)
    assert result.root.digest == source.root().digest
    for image in result.images:
        assert image.soci_index is not None
        soci_index = manifest_of(result.layout, image.soci_index)
        assert soci_index.subject is not None
        assert soci_index.subject.digest == image.manifest.digest


def test_a_cache_gives_the_same_result_and_a_wrong_ztoc_in_it_is_not_used(tmp_path: Path) -> None:
    source = image_layout(tmp_path / "source")
    plain = convert(source, tmp_path / "plain", options=SMALL)
    cache = CacheFolder(tmp_path / "cache")
    first = convert(source, tmp_path / "first", options=SMALL, ztocs=cache)
    again = convert(source, tmp_path / "again", options=SMALL, ztocs=cache)
    (image,) = plain.images
    other = plain.layout.blob_path(image.layers[1].ztoc or Digest.of(b"")).read_bytes()
    for layer in image.layers:
        cache.put(layer.digest, layer.media_type, SMALL.span_size, "another tool", other)
        cache.put(layer.digest, layer.media_type, SMALL.span_size, f"{_tool()}", b"no zTOC at all")
    mended = convert(source, tmp_path / "mended", options=SMALL, ztocs=cache)
    assert plain.root == first.root == again.root == mended.root


def _renamed(ztoc: Ztoc) -> Ztoc:
    first, *others = ztoc.entries
    return replace(ztoc, entries=(first._replace(name=first.name[::-1]), *others))


def _with_setuid(ztoc: Ztoc) -> Ztoc:
    return replace(ztoc, entries=tuple(entry._replace(mode=0o4755) for entry in ztoc.entries))


def _with_another_window(ztoc: Ztoc) -> Ztoc:
    assert isinstance(ztoc.checkpoints, GzipCheckpoints)
    points = [point._replace(window=b"\7" * len(point.window)) for point in ztoc.checkpoints.points]
    return replace(ztoc, checkpoints=replace(ztoc.checkpoints, points=points))


def _with_other_span_digests(ztoc: Ztoc) -> Ztoc:
    return replace(ztoc, span_digests=(Digest.of(b"forged"),) * ztoc.spans)


@pytest.mark.parametrize("forge", [_renamed, _with_setuid, _with_another_window, _with_other_span_digests])
def test_a_forged_ztoc_of_the_right_layer_is_not_used(tmp_path: Path, forge: Callable[[Ztoc], Ztoc]) -> None:
    source = image_layout(tmp_path / "source")
    plain = convert(source, tmp_path / "plain", options=SMALL)
    cache = CacheFolder(tmp_path / "cache")
    for layer in plain.images[0].layers:
        assert layer.ztoc is not None
        forged = encode(forge(decode(plain.layout.blob_path(layer.ztoc).read_bytes())))
        assert Digest.of(forged) != layer.ztoc
        cache.put(layer.digest, layer.media_type, SMALL.span_size, _tool(), forged)
    assert convert(source, tmp_path / "result", options=SMALL, ztocs=cache).root == plain.root


def _tool() -> str:
    from soci_pipeline.soci.ztoc.build_tool import BUILD_TOOL

    return BUILD_TOOL


def soci_entries(conversion: Conversion) -> list[Descriptor]:
    return [child for child in children(conversion) if child.artifact_type == SOCI_INDEX_V2]


ARM_V7 = Platform("linux", "arm", "v7")
ARM64_V8 = Platform("linux", "arm64", "v8")


def test_soci_indexes_come_in_the_order_and_spelling_in_which_platforms_were_asked_for(tmp_path: Path) -> None:
    source = index_layout(tmp_path / "source", [AMD64, ARM64_V8, ARM_V7])
    asked = {"linux/arm": "linux/arm", "linux/arm64/v8": "linux/arm64/v8", "linux/x86_64": "linux/amd64"}
    result = convert(source, tmp_path / "one", options=SMALL, platforms=[Platform.parse(text) for text in asked])
    assert [str(child.platform) for child in soci_entries(result)] == list(asked.values())
    assert [str(child.platform) for child in children(result)[:3]] == ["linux/amd64", "linux/arm64/v8", "linux/arm/v7"]
    asked = {"linux/arm64": "linux/arm64", "linux/arm/v7": "linux/arm/v7", "linux/arm/7": ""}
    result = convert(source, tmp_path / "two", options=SMALL, platforms=[Platform.parse(text) for text in asked])
    assert [str(child.platform) for child in soci_entries(result)] == ["linux/arm64", "linux/arm/v7"]


@pytest.mark.parametrize(
    ("listed", "said"),
    [(None, "linux/arm64"), (ARM64_V8, "linux/arm64/v8"), (AMD64, "linux/arm64")],
    ids=["without a platform", "as index.json spells it", "index.json is wrong"],
)
def test_a_single_image_is_listed_with_its_platform(tmp_path: Path, listed: Platform | None, said: str) -> None:
    source = Layout.create(tmp_path / "source")
    source.set_roots([add_image(source, ARM64_V8).annotated(platform=listed)])
    result = convert(source, tmp_path / "result", options=SMALL)
    assert [str(child.platform) for child in children(result)] == [said, said]


def test_images_that_index_json_lists_itself_are_one_image_index(tmp_path: Path) -> None:
    source = index_layout(tmp_path / "source")
    index = source.read_document(source.root())
    assert isinstance(index, ImageIndex)
    expected = convert(source, tmp_path / "expected", options=SMALL)
    named = [
        child.annotated(platform=None, annotations={"org.opencontainers.image.ref.name": tag})
        for child in index.manifests
        for tag in ("latest", "1.0")
    ]
    source.set_roots(named)
    assert convert(source, tmp_path / "result", options=SMALL).root == expected.root


def test_several_image_indexes_in_one_layout_are_refused(tmp_path: Path) -> None:
    source = index_layout(tmp_path / "source")
    source.set_roots([source.root(), add_image(source, Platform("linux", "s390x"))])
    with pytest.raises(InvalidInput, match="2 separate images"):
        convert(source, tmp_path / "result", options=SMALL)


def test_an_image_index_that_lists_thousands_is_refused(tmp_path: Path) -> None:
    source = Layout.create(tmp_path / "source")
    crowd = ImageIndex(manifests=(add_image(source, AMD64),) * 5000)
    source.set_roots([source.add_document(crowd)])
    with pytest.raises(InvalidInput, match="5000 entries"):
        convert(source, tmp_path / "result", options=SMALL)


def test_the_soci_index_of_an_image_that_is_gone_gives_way_to_the_new_one(tmp_path: Path) -> None:
    first = convert(index_layout(tmp_path / "old"), tmp_path / "first", options=SMALL)
    source = first.layout
    rebuilt = add_image(source, AMD64, [gzip_layer({"new": text(100_000)})])
    mixed = ImageIndex(manifests=(rebuilt, *children(first)[1:]))
    source.set_roots([source.add_document(mixed)])
    result = convert(source, tmp_path / "result", options=SMALL)
    named = [child.annotations[IMAGE_MANIFEST_DIGEST] for child in soci_entries(result)]
    assert named == [str(child.digest) for child in children(result)[:2]]
    assert named[0] == str(result.images[0].manifest.digest)


@pytest.mark.parametrize(
    ("name", "marked"), [("plain", True), ("folder/.wh..wh..opq", False), ("folder/odd.wh..wh..opq", False)]
)
def test_layers_without_opaque_folders_are_marked(tmp_path: Path, name: str, marked: bool) -> None:
    source = image_layout(tmp_path / "source", layers=[gzip_layer({name: text(100_000)})])
    result = convert(source, tmp_path / "result", options=SMALL, disable_xattrs=True)
    (ztoc,) = manifest_of(result.layout, soci_entries(result)[0]).layers
    assert ("com.amazon.soci.disable-xattrs" in ztoc.annotations) is marked


def test_chosen_platforms_alone_are_indexed(tmp_path: Path) -> None:
    source = index_layout(tmp_path / "source")
    result = convert(source, tmp_path / "result", options=SMALL, platforms=[ARM64])
    assert [image.platform.architecture for image in result.images] == ["arm64"]
    with pytest.raises(InvalidInput, match="s390x"):
        convert(source, tmp_path / "other", options=SMALL, platforms=[type(AMD64)("linux", "s390x")])
