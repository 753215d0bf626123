"""The layers for indexing benchmarks: trees of real packages, built once and kept in the toolchain folder."""

import hashlib
import io
import math
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_stack.base_image import debian_base_image
from local_stack.plain_image import Member, file_member
from local_stack.toolchain import Toolchain
from soci_pipeline.machine.programs import run
from soci_pipeline.oci import canonical_json
from soci_pipeline.oci.blob_writer import BlobWriter
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import OCI_CONFIG, OCI_LAYER_GZIP
from soci_pipeline.oci.platform import Platform

ML_PACKAGES = (
    "lightgbm==4.6.0",
    "llvmlite==0.44.0",
    "matplotlib==3.10.1",
    "networkx==3.4.2",
    "numba==0.61.2",
    "numpy==2.2.6",
    "onnxruntime==1.21.1",
    "opencv-python-headless==4.11.0.86",
    "pandas==2.2.3",
    "pillow==11.2.1",
    "plotly==5.24.1",
    "polars==1.27.1",
    "pyarrow==19.0.1",
    "scikit-learn==1.6.1",
    "scipy==1.15.3",
    "tokenizers==0.21.1",
    "transformers==4.51.3",
)
MORE_PACKAGES = ("statsmodels==0.14.4", "sympy==1.13.3")
PYTHON = "3.11"
WHEEL_PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64")
DEBIAN_PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm64"))
CREATED = 1_704_067_200
NOISE_FILE = 64 << 20
NOISE_FILES = 36

_RECIPE = "1"
_PIECE = 1 << 20


@dataclass(frozen=True)
class BenchLayer:
    """An image of one layer. ``tar_bytes`` is the layer's uncompressed size; ``entries`` counts its tar headers."""

    name: str
    image: Layout
    layer: Descriptor
    tar_bytes: int
    entries: int

    @property
    def path(self) -> Path:
        return self.image.blob_path(self.layer.digest)

    @property
    def described(self) -> str:
        gigabytes = f"{self.layer.size / 1e9:.2f} GB of gzip, {self.tar_bytes / 1e9:.2f} GB of tar"
        return f"{self.name} ({gigabytes}, {self.entries:,} entries)"


class Shelf:
    """Builds the layers, or reuses those of an earlier run."""

    def __init__(self, toolchain: Toolchain, scale: float = 1.0) -> None:
        self.toolchain = toolchain
        self.scale = scale
        self.folder = toolchain.folder / "bench"
        self.folder.mkdir(parents=True, exist_ok=True)

    def machine_learning(self) -> BenchLayer:
        """Return the result of `pip install` of machine learning packages."""
        return self._kept("ML packages", 2, lambda: self.tree("opt/venv/lib", self._some(ML_PACKAGES)))

    def entry_heavy(self) -> BenchLayer:
        """Return the same packages and some more, in two environments, on top of Debian."""
        return self._kept("entry-heavy", 2, self._entry_heavy)

    def large(self) -> BenchLayer:
        """Return such an environment plus incompressible files: more than 2.5 GB compressed."""
        return self._kept("packages and noise", 2, self._large)

    def debian(self) -> BenchLayer:
        """Return a root file system of Debian with Python."""
        index = debian_base_image(self.toolchain, DEBIAN_PLATFORMS)
        images = index.read_document(index.root())
        assert isinstance(images, ImageIndex)
        manifest = index.read_document(images.manifests[0])
        assert isinstance(manifest, ImageManifest)
        return self._kept("Debian root", 6, lambda: _members_of(index.blob_path(manifest.layers[0].digest)))

    def _kept(self, name: str, level: int, members: Callable[[], Iterator[Member]]) -> BenchLayer:
        size = "" if self.scale == 1 else f"-{self.scale:g}"
        place = self.folder / f"{name.replace(' ', '-').lower()}-{_RECIPE}{size}"
        if not place.exists():
            print(f"    making the layer {name}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
                _make(Path(scratch) / "layout", members(), level)
                (Path(scratch) / "layout").rename(place)
        image = Layout.open(place)
        manifest = image.read_document(image.root())
        assert isinstance(manifest, ImageManifest)
        notes = manifest.annotations
        return BenchLayer(name, image, manifest.layers[0], int(notes["bench.tar"]), int(notes["bench.entries"]))

    def _entry_heavy(self) -> Iterator[Member]:
        yield from _members_of(self.debian().path)
        for place in ("opt/one/lib", "opt/two/lib"):
            yield from self.tree(place, self._some((*ML_PACKAGES, *MORE_PACKAGES)))

    def _large(self) -> Iterator[Member]:
        yield from self.tree("opt/venv/lib", self._some(ML_PACKAGES))
        # The same noise in each file: deflate looks back only 32 KiB, so the repetition is not compressed.
        noise = os.urandom(NOISE_FILE)
        for number in range(math.ceil(NOISE_FILES * self.scale)):
            yield file_member(f"srv/data/{number:04}.bin", noise, moment=CREATED)

    def _some(self, packages: Sequence[str]) -> Sequence[str]:
        return packages[: math.ceil(len(packages) * self.scale)]

    def tree(self, prefix: str, packages: Sequence[str]) -> Iterator[Member]:
        """Yield the files that packages leave in a folder, with the folders themselves."""
        made: set[str] = set()
        for package in packages:
            with zipfile.ZipFile(self._wheel(package)) as wheel:
                for item in sorted(wheel.infolist(), key=lambda item: item.filename):
                    if item.is_dir():
                        continue
                    name = f"{prefix}/{item.filename}"
                    yield from _folders_of(name, made)
                    yield file_member(name, wheel.read(item), moment=CREATED)

    def _wheel(self, package: str) -> Path:
        place = self.folder / "wheels"
        name, version = package.split("==")
        pattern = f"{name.replace('-', '_')}-{version}-*.whl"
        if not any(place.glob(pattern)):
            options = ["--quiet", "--no-deps", "--only-binary=:all:", "--python-version", PYTHON]
            options += [f"--platform={platform}" for platform in WHEEL_PLATFORMS]
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
            run([*pip, *options, "--dest", place, package], timeout=600)
        return next(place.glob(pattern))


def prepared(name: str, scale: float = 1.0) -> BenchLayer:
    """Return a layer by the name of its method; a missing one is built in a separate process.

    Building one holds whole wheels in memory, and a measured process must not start with such a peak.
    """
    code = f"import benchmarks.layers as b; b.Shelf(b.Toolchain(), {scale}).{name}()"
    project = Path(__file__).resolve().parents[1]
    run([sys.executable, "-c", code], cwd=project, timeout=1500, stream=True)
    found: BenchLayer = getattr(Shelf(Toolchain(), scale), name)()
    return found


def _folders_of(name: str, made: set[str]) -> Iterator[Member]:
    parts = name.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        folder = "/".join(parts[:depth])
        if folder not in made:
            made.add(folder)
            header = tarfile.TarInfo(folder)
            header.type, header.mode, header.mtime = tarfile.DIRTYPE, 0o755, CREATED
            yield header, b""


def _members_of(layer: Path) -> Iterator[Member]:
    with tarfile.open(layer, "r|gz") as archive:
        for header in archive:
            file = archive.extractfile(header) if header.isreg() else None
            yield header, file.read() if file is not None else b""


@dataclass(frozen=True, slots=True)
class MadeLayer:
    """A layer in a layout, with facts about its tar."""

    descriptor: Descriptor
    diff_id: str
    tar_bytes: int
    entries: int


def add_layer(image: Layout, members: Iterator[Member], level: int) -> MadeLayer:
    """Store the members as a gzip layer."""
    entries = 0
    with image.writer() as blob:
        sink = _Gzip(blob, level)
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE) as archive:
            for header, content in members:
                archive.addfile(header, io.BytesIO(content) if header.isreg() else None)
                entries += 1
                # tarfile keeps each member in memory for reading back, which is not needed.
                archive.members.clear()  # type: ignore[attr-defined]
        sink.finish()
    assert blob.digest is not None
    layer = Descriptor(media_type=OCI_LAYER_GZIP, digest=blob.digest, size=blob.written)
    return MadeLayer(layer, f"sha256:{sink.digest.hexdigest()}", sink.size, entries)


def set_image(image: Layout, layers: Sequence[MadeLayer], platform: Platform) -> None:
    """Make an image of layers in the layout its root."""
    config = {
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
    notes = {
        "bench.tar": str(sum(layer.tar_bytes for layer in layers)),
        "bench.entries": str(sum(layer.entries for layer in layers)),
    }
    stored = image.add_bytes(canonical_json.encode(config), OCI_CONFIG)
    manifest = ImageManifest(config=stored, layers=tuple(layer.descriptor for layer in layers), annotations=notes)
    image.set_roots([image.add_document(manifest).annotated(platform=platform)])


def _make(place: Path, members: Iterator[Member], level: int) -> None:
    image = Layout.create(place)
    set_image(image, [add_layer(image, members, level)], Platform.native())
    shutil.rmtree(place / ".incoming", ignore_errors=True)


class _Gzip(io.RawIOBase):
    """Compresses a tar stream into one gzip member, as builders do."""

    def __init__(self, blob: BlobWriter, level: int) -> None:
        self._blob = blob
        self._packer = _packer(level)
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += len(data)
        self._blob.write(self._packer.compress(data))
        return len(data)

    def finish(self) -> None:
        self._blob.write(self._packer.flush())


def _packer(level: int) -> Any:
    """Return zlib-ng's compressor if available: the layers are gigabytes, compressed before the measurement."""
    try:
        from zlib_ng import zlib_ng
    except ImportError:
        return zlib.compressobj(level, wbits=31)
    return zlib_ng.compressobj(level, wbits=31)
