"""The reference's own indexer, live: `soci create` of Debian's package writes the same zTOCs as the native one.

It is soci 0.4.1 over a real containerd; the larger layers are made of what lies on the machine, and so are seldom the
same twice. Layers of several gzip members are left out: that version cuts them off after the first.
"""

import io
import re
import sysconfig
import tarfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from local_stack.base_image import debian_base_image
from local_stack.toolchain import Toolchain
from soci_pipeline.oci.annotations import SPAN_SIZE
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest, parse_image_manifest
from soci_pipeline.oci.media_types import OCI_LAYER
from soci_pipeline.oci.platform import Platform
from soci_pipeline.soci.index.convert import convert
from soci_pipeline.soci.index.records import IndexVersion, SociOptions
from soci_pipeline.soci.ztoc.build import build_ztoc
from tests.support.images import AMD64, ARM64, Layer, image_layout
from tests.support.snapshotter import PrivateContainerd
from tests.support.tars import Entry, directory, gzipped, hardlink, noise, symlink, tar, text

REFERENCE_TOOL = "AWS SOCI CLI v0.1"
SPAN_SIZES = (4 << 20, 1 << 20, 100_000)
# Installed for the tests: pure Python, compiled modules and much data, in thousands of files.
PYTHON_PACKAGES = ("prefect", "cryptography", "pydantic", "pydantic_core", "hypothesis", "starlette", "docker")

_WRITTEN = re.compile(r"layer (sha256:[0-9a-f]{64}) -> ztoc (sha256:[0-9a-f]{64})")


@pytest.fixture(scope="module")
def debian_layer(toolchain: Toolchain, or_skip: Callable[[], AbstractContextManager[None]]) -> Layer:
    """The file system of a small Debian."""
    with or_skip():
        base = debian_base_image(toolchain, (AMD64, ARM64))
    index = base.read_document(base.root())
    assert isinstance(index, ImageIndex)
    manifest = base.read_document(index.manifests[0])
    assert isinstance(manifest, ImageManifest)
    return Layer(base.blob_path(manifest.layers[0].digest).read_bytes())


@pytest.fixture(scope="module")
def python_layer() -> Layer:
    """Python packages as `COPY --from` puts them into an image: PAX headers with times to the nanosecond."""
    site = Path(sysconfig.get_path("purelib"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for package in PYTHON_PACKAGES:
            archive.add(site / package, arcname=f"opt/app/lib/{package}", filter=_without_caches)
    return Layer(gzipped(buffer.getvalue(), level=6))


def _without_caches(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in info.name else info


@pytest.fixture(scope="module")
def odd_layer() -> Layer:
    """One of everything that a layer may hold, in GNU's dialect, which has other long names."""
    long_name = "/".join(["a-folder-with-a-rather-long-name"] * 6)
    entries: Sequence[Entry] = (
        directory("etc", mode=0o2755),
        Entry("etc/empty"),
        Entry("etc/owned", b"x" * 700, uid=4_000_000, gid=70_000, uname="zoë", gname="users", mode=0o4711),
        symlink("etc/link", f"../{long_name}"),
        hardlink("etc/hard", "etc/owned"),
        Entry("dev/null", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
        Entry("dev/disk", kind=tarfile.BLKTYPE, device=(254, 1)),
        Entry("run/pipe", kind=tarfile.FIFOTYPE),
        Entry(f"{long_name}/data", noise(3_000_000, seed=7)),
        Entry("usr/share/words", text(9_000_000, seed=8)),
        Entry("usr/.wh.removed"),
        Entry("etc/empty", b"named twice\n"),
    )
    return Layer(gzipped(tar(entries, dialect=tarfile.GNU_FORMAT), level=9))


@pytest.fixture(scope="module")
def attributes_layer() -> Layer:
    """PAX records: extended attributes, fractions of a second, a name that needs them."""
    entries = [
        Entry(
            f"srv/{number}-{'ä' * number}",
            noise(60_000, seed=number),
            mtime=1_700_000_000.25 + number,
            pax={"SCHILY.xattr.user.note": f"number {number}", "SCHILY.xattr.user.empty": "", "comment": "kept"},
        )
        for number in range(40)
    ]
    return Layer(gzipped(tar(entries), level=1))


@pytest.fixture(scope="module")
def uncompressed_layer(debian_layer: Layer) -> Layer:
    """As a builder leaves it that does not compress."""
    return Layer(debian_layer.tar, OCI_LAYER)


@pytest.mark.parametrize("span_size", SPAN_SIZES)
@pytest.mark.parametrize(
    "name", ["debian_layer", "python_layer", "odd_layer", "attributes_layer", "uncompressed_layer"]
)
def test_the_native_ztoc_is_the_references_byte_for_byte(
    name: str, span_size: int, containerd: PrivateContainerd, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    layer: Layer = request.getfixturevalue(name)
    image = image_layout(tmp_path / "image", Platform.native(), [layer])
    expected = _created_by_soci(image, containerd, tmp_path / "image.tar", span_size)[layer.digest]
    built = build_ztoc(io.BytesIO(layer.data), layer.media_type, span_size=span_size, build_tool=REFERENCE_TOOL)
    assert built.digest == expected
    # The digest says it all; a difference is easier to find in the bytes.
    assert built.data == containerd.soci_blob(expected)


def test_the_native_v1_index_adds_the_span_size_and_is_else_the_references(
    debian_layer: Layer, attributes_layer: Layer, containerd: PrivateContainerd, tmp_path: Path
) -> None:
    """Newer releases of the reference write the span size beside each zTOC; 0.4.1 does not."""
    image = image_layout(tmp_path / "image", Platform.native(), [debian_layer, attributes_layer])
    _created_by_soci(image, containerd, tmp_path / "image.tar", 4 << 20)
    digests = containerd.run(["soci", "index", "list", "--quiet"]).stdout.split()
    documents = [parse_image_manifest(containerd.soci_blob(digest)) for digest in digests]
    options = SociOptions(version=IndexVersion.V1, min_layer_size=0)
    conversion = convert(image, tmp_path / "indexed", options=options, build_tool=REFERENCE_TOOL)
    index = conversion.images[0].soci_index
    assert index is not None
    native = parse_image_manifest(conversion.layout.read(index))
    assert {layer.annotations[SPAN_SIZE] for layer in native.layers} == {str(4 << 20)}
    assert native.replaced(layers=tuple(map(_without_span_size, native.layers))) in documents


def _without_span_size(ztoc: Descriptor) -> Descriptor:
    return ztoc.annotated(annotations={key: text for key, text in ztoc.annotations.items() if key != SPAN_SIZE})


def _created_by_soci(image: Layout, containerd: PrivateContainerd, archive: Path, span_size: int) -> dict[str, str]:
    """The digests of the zTOCs that `soci create` writes, by layer."""
    name = f"soci.test/{image.root().digest.hex[:12]}:{span_size}"
    with tarfile.open(archive, "w") as packed:
        packed.add(image.path, arcname=".")
    containerd.run(["ctr", "image", "import", "--no-unpack", "--index-name", name, archive])
    sizes = ["--span-size", str(span_size), "--min-layer-size", "0"]
    created = containerd.run(["soci", "create", *sizes, name]).stdout
    return dict(_WRITTEN.findall(created))
