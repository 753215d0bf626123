from pathlib import Path

import pytest

from soci_pipeline.containerd.indexing import index_with_containerd
from soci_pipeline.errors import DamagedContent
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.oci.media_types import OCI_LAYER_ZSTD, SOCI_INDEX_V2
from soci_pipeline.soci.index.convert import convert
from soci_pipeline.soci.index.records import IndexVersion, SociOptions
from soci_pipeline.soci.reasons import Reason
from tests.support.fake_programs import Programs
from tests.support.images import AMD64, Layer, gzip_layer, image_layout, index_layout, only_manifest
from tests.support.tars import noise, text

OPTIONS = SociOptions(version=IndexVersion.V2, min_layer_size=10_000)

# Converts as the reference does, with other bytes for zTOCs: what is tested is what is made of its result.
CONVERT = f"""
if '--version' in sys.argv:
    sys.exit(print('soci version v0.15.0 abc'))
if '--help' in sys.argv:
    sys.exit()
sys.path[:0] = {[str(Path(__file__).resolve().parents[3] / "src")]!r}
from pathlib import Path
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import SOCI_INDEX_V2, SOCI_LAYER
source, made = Layout.open(Path(sys.argv[-2])), Layout.create(Path(sys.argv[-1]))
least = int(sys.argv[sys.argv.index('--min-layer-size') + 1])
root = source.root()
for node in source.walk(root):
    made.link_from(source, node)
image = source.read_document(root)
layers = [layer for layer in image.layers if layer.size >= least]
if not layers:
    sys.exit('soci: no ztocs created, all layers either skipped or produced errors')
named = [made.add_bytes(b'ztoc' + layer.digest.encode(), SOCI_LAYER).annotated(
    annotations={{'com.amazon.soci.image-layer-digest': str(layer.digest)}}) for layer in layers]
index = made.add_document(ImageManifest(config=made.add_bytes(b'{{}}', SOCI_INDEX_V2), layers=tuple(named)))
image = made.add_document(image.replaced(annotations={{'com.amazon.soci.index-digest': str(index.digest)}}))
entries = (image.annotated(platform=root.platform), index.annotated(artifact_type=SOCI_INDEX_V2,
    annotations={{'com.amazon.soci.image-manifest-digest': str(image.digest)}}, platform=root.platform))
made.set_roots([made.add_document(ImageIndex(manifests=entries))])
"""


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    (tmp_path / "bin").mkdir()
    return Programs(tmp_path / "bin")


@pytest.fixture
def image(tmp_path: Path) -> Layout:
    layers = [gzip_layer({"large": noise(50_000)}), gzip_layer({"small": text(1000)})]
    return image_layout(tmp_path / "image", AMD64, layers)


def test_the_converted_image_and_its_index_are_recorded(programs: Programs, image: Layout, tmp_path: Path) -> None:
    programs.add_python("soci", CONVERT)
    result = index_with_containerd(image, tmp_path / "out", options=OPTIONS, env=programs.env)
    (record,) = result.images
    large, small = record.layers
    assert large.ztoc is not None
    assert (small.ztoc, small.reason) == (None, Reason.TOO_SMALL)
    assert record.manifest.digest != image.root().digest
    assert record.soci_index is not None
    assert record.soci_index.artifact_type == SOCI_INDEX_V2
    assert Layout.open(tmp_path / "out").root() == result.root
    assert all(result.layout.has(node) for node in result.layout.walk(result.root))


def test_nothing_large_enough_leaves_the_image_as_it_is(programs: Programs, image: Layout, tmp_path: Path) -> None:
    programs.add_python("soci", CONVERT)
    options = SociOptions(version=IndexVersion.V2)
    result = index_with_containerd(image, tmp_path / "out", options=options, env=programs.env)
    (record,) = result.images
    assert record.manifest.digest == image.root().digest
    assert record.soci_index is None
    assert [layer.reason for layer in record.layers] == [Reason.TOO_SMALL] * 2
    assert isinstance(result.layout.read_document(result.root), ImageIndex)


def test_a_small_layer_of_another_kind_has_the_reason_that_the_native_toolchain_names(
    programs: Programs, tmp_path: Path
) -> None:
    programs.add_python("soci", CONVERT)
    layers = [
        gzip_layer({"large": noise(50_000)}),
        Layer(b"\x28\xb5\x2f\xfd" * 20, OCI_LAYER_ZSTD),
        Layer(b"?" * 80, "text/plain"),
    ]
    source = image_layout(tmp_path / "image", AMD64, layers)
    result = index_with_containerd(source, tmp_path / "out", options=OPTIONS, env=programs.env)
    native = convert(source, tmp_path / "native", options=OPTIONS)
    reasons = [layer.reason for layer in result.images[0].layers]
    assert reasons == [None, Reason.ZSTD, Reason.FOREIGN] == [layer.reason for layer in native.images[0].layers]


def test_a_small_layer_that_has_an_address_and_is_there_is_too_small_with_either_toolchain(
    programs: Programs, image: Layout, tmp_path: Path
) -> None:
    programs.add_python("soci", CONVERT)
    manifest = only_manifest(image)
    small = manifest.layers[1].annotated(urls=("https://example.com/base",))
    addressed = image.add_document(manifest.replaced(layers=(manifest.layers[0], small)))
    image.set_roots([addressed.annotated(platform=AMD64)])
    result = index_with_containerd(image, tmp_path / "out", options=OPTIONS, env=programs.env)
    native = convert(image, tmp_path / "native", options=OPTIONS)
    reasons = [layer.reason for layer in result.images[0].layers]
    assert reasons == [None, Reason.TOO_SMALL] == [layer.reason for layer in native.images[0].layers]


def test_attestations_follow_the_converted_image(programs: Programs, tmp_path: Path) -> None:
    programs.add_python("soci", CONVERT)
    source = index_layout(tmp_path / "image", (AMD64,), attestations=True)
    options = SociOptions(version=IndexVersion.V2, min_layer_size=0)
    result = index_with_containerd(source, tmp_path / "out", options=options, env=programs.env)
    (record,) = result.images
    (attestation,) = record.attestations
    assert attestation.annotations["vnd.docker.reference.digest"] == str(record.manifest.digest)
    root = result.layout.read_document(result.root)
    assert isinstance(root, ImageIndex)
    assert record.soci_index is not None
    listed = [item.digest for item in root.manifests]
    assert listed == [record.manifest.digest, attestation.digest, record.soci_index.digest]
    assert all(result.layout.has(node) for node in result.layout.walk(result.root))


def test_a_blob_that_the_program_has_damaged_is_found(programs: Programs, image: Layout, tmp_path: Path) -> None:
    spoil = "path = made.blob_path(named[0].digest); path.chmod(0o644); path.write_bytes(b'x' * named[0].size)"
    programs.add_python("soci", f"{CONVERT}\n{spoil}\n")
    with pytest.raises(DamagedContent):
        index_with_containerd(image, tmp_path / "out", options=OPTIONS, env=programs.env)


def test_nothing_else_stays_beside_the_result(programs: Programs, image: Layout, tmp_path: Path) -> None:
    programs.add_python("soci", CONVERT)
    index_with_containerd(image, tmp_path / "out" / "x", options=OPTIONS, env=programs.env)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]
