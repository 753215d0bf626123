"""Byte identity with the reference, for layers and for whole images."""

from pathlib import Path

import pytest

from soci_pipeline.errors import DamagedContent, LayerNotIndexable
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest, parse_image_index
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.records import Reason, SociOptions
from soci_pipeline.soci.convert import Conversion, convert
from soci_pipeline.soci.ztoc import build_ztoc
from soci_pipeline.soci.ztoc_codec import decode, encode
from tests.support.vectors import (
    REFERENCE_TOOL,
    ConvertVector,
    LayerVector,
    convert_vectors,
    layer_vectors,
    source_layout,
)

LAYERS = layer_vectors()
CONVERSIONS = convert_vectors()
KNOWN = [(layer, span, digest) for layer in LAYERS for span, digest in layer.ztocs.items()]


def ids(vector: object) -> str:
    return vector.name if isinstance(vector, LayerVector | ConvertVector) else str(vector)


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer.name != "mix.tar.zst"], ids=ids)
def test_the_layers_are_put_together_as_they_were(layer: LayerVector) -> None:
    assert Digest.of(layer.data) == layer.digest


@pytest.mark.parametrize(("layer", "span_size", "expected"), KNOWN, ids=ids)
def test_a_ztoc_is_byte_identical(layer: LayerVector, span_size: int, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "layer"
    path.write_bytes(layer.data)
    built = build_ztoc(path, layer.media_type, span_size=span_size, build_tool=REFERENCE_TOOL)
    assert built.digest == expected


@pytest.mark.parametrize(("layer", "span_size", "expected"), KNOWN[::2], ids=ids)
def test_a_ztoc_is_the_same_with_the_systems_zlib(
    layer: LayerVector, span_size: int, expected: str, tmp_path: Path, zlib_engine: str
) -> None:
    path = tmp_path / "layer"
    path.write_bytes(layer.data)
    assert build_ztoc(path, layer.media_type, span_size=span_size, build_tool=REFERENCE_TOOL).digest == expected


@pytest.mark.parametrize(
    ("layer", "span_size", "expected"),
    [item for item in KNOWN if not (item[1] == 1 and ".gz" not in item[0].name)],
    ids=ids,
)
def test_a_decoded_ztoc_encodes_to_the_same_bytes(
    layer: LayerVector, span_size: int, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "layer"
    path.write_bytes(layer.data)
    built = build_ztoc(path, layer.media_type, span_size=span_size, build_tool=REFERENCE_TOOL)
    decoded = decode(built.data)
    assert encode(decoded) == built.data
    assert (decoded.spans, len(decoded.entries)) == (built.spans, built.entries)


@pytest.mark.parametrize("name", ["mix-badcrc.tar.gz", "mix-truncated.tar.gz"])
def test_a_damaged_layer_fails_with_its_digest(name: str, tmp_path: Path) -> None:
    layer = next(layer for layer in LAYERS if layer.name == name)
    path = tmp_path / "layer"
    path.write_bytes(layer.data)
    with pytest.raises(DamagedContent, match=layer.digest):
        build_ztoc(path, layer.media_type)


@pytest.mark.parametrize(
    ("name", "reason"), [("mix.tar.zst", Reason.ZSTD), ("paxglobal-l6.tar.gz", Reason.UNSUPPORTED_ENTRY)]
)
def test_a_layer_that_the_format_cannot_describe_has_a_reason(name: str, reason: Reason, tmp_path: Path) -> None:
    layer = next(layer for layer in LAYERS if layer.name == name)
    path = tmp_path / "layer"
    path.write_bytes(layer.data)
    with pytest.raises(LayerNotIndexable) as caught:
        build_ztoc(path, layer.media_type)
    assert caught.value.code == reason


def converted(vector: ConvertVector, source: Layout, destination: Path) -> Conversion:
    arguments = vector.arguments

    def value(flag: str) -> str | None:
        return arguments[arguments.index(flag) + 1] if flag in arguments else None

    platform, prefetch = value("--platform"), value("--prefetch-file")
    return convert(
        source,
        destination,
        options=SociOptions(
            span_size=int(value("--span-size") or 4 << 20), min_layer_size=int(value("--min-layer-size") or 10 << 20)
        ),
        build_tool=REFERENCE_TOOL,
        platforms=[Platform.parse(platform)] if platform else None,
        disable_xattrs="xattr" in arguments,
        prefetch_files=[prefetch] if prefetch else [],
    )


@pytest.mark.parametrize(
    "vector", [item for item in CONVERSIONS if item.image == "docker" and item.index_digest], ids=ids
)
def test_a_converted_image_is_byte_identical(vector: ConvertVector, tmp_path: Path) -> None:
    result = converted(vector, source_layout(vector.image, tmp_path / "source"), tmp_path / "result")
    assert result.root.digest == vector.index_digest
    assert result.layout.read(result.root) == vector.documents["image-index.json"]


@pytest.mark.parametrize("vector", [item for item in CONVERSIONS if item.image == "multi"], ids=ids)
def test_manifests_and_soci_indexes_of_several_platforms_are_byte_identical(
    vector: ConvertVector, tmp_path: Path
) -> None:
    result = converted(vector, source_layout(vector.image, tmp_path / "source"), tmp_path / "result")
    theirs = parse_image_index(vector.documents["image-index.json"])
    ours = result.layout.read_document(result.root)
    assert isinstance(ours, ImageIndex)
    assert ours.annotations == theirs.annotations
    assert [_but_attestations(item) for item in ours.manifests] == [
        _but_attestations(item) for item in theirs.manifests
    ]
    for name, data in vector.documents.items():
        if name != "image-index.json" and b"in-toto" not in data:
            assert (result.layout.blob_path(Digest.of(data))).read_bytes() == data, name


def test_an_image_without_a_large_layer_is_written_as_it_is(tmp_path: Path) -> None:
    vector = next(item for item in CONVERSIONS if item.index_digest is None)
    result = converted(vector, source_layout(vector.image, tmp_path / "source"), tmp_path / "result")
    assert [layer.reason for layer in result.images[0].layers] == [Reason.TOO_SMALL] * 3
    assert result.images[0].soci_index is None
    manifest = result.layout.read_document(result.images[0].manifest)
    assert isinstance(manifest, ImageManifest)
    assert manifest.annotations == {}


@pytest.mark.parametrize("vector", [item for item in CONVERSIONS if item.index_digest], ids=ids)
def test_converting_again_changes_nothing(vector: ConvertVector, tmp_path: Path) -> None:
    first = converted(vector, source_layout(vector.image, tmp_path / "source"), tmp_path / "first")
    assert converted(vector, first.layout, tmp_path / "second").root == first.root


def _but_attestations(item: Descriptor) -> object:
    unknown = item.platform is not None and item.platform.is_unknown
    return "attestation" if unknown else item.to_json()
