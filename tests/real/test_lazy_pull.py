"""What the indexes are for: Debian's SOCI snapshotter starts a container before its image is there.

The image is indexed natively as v1 (which is what soci 0.4.1 reads), pushed by our client to the embedded registry over
TLS, and pulled lazily on a name that is not localhost: there 0.4.1 would mix http and https.
"""

import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from local_stack.base_image import debian_base_image
from local_stack.footprint import VARIABLE, marked_processes
from local_stack.ports import LOOPBACK
from local_stack.toolchain import Toolchain
from soci_pipeline.machine.emulation import mounted_filesystems
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph
from soci_pipeline.soci.index.convert import convert
from soci_pipeline.soci.index.records import IndexVersion, LayerRecord, PlatformImage, SociOptions
from tests.support.images import AMD64, ARM64
from tests.support.snapshotter import PrivateContainerd, private_containerd
from tests.support.tls_registry import RecordingRegistry, tls_registry

NAME = "registry.test"
# A large text in the middle of the layer.
READ_FILE = "pydoc_data/topics.py"
# Small, so that a short program does not read the whole of a small image.
SPAN_SIZE = 1 << 20


@dataclass(frozen=True)
class Scene:
    """A registry with a known name, and a containerd that has pulled nothing yet."""

    registry: RecordingRegistry
    containerd: PrivateContainerd

    def push(self, layout: Layout, image: PlatformImage, repository: str) -> str:
        """Push an image, with its SOCI index where it has one; returns the reference by name."""
        extra = (image.soci_index,) if image.soci_index else ()
        with RegistryClient(self.registry.loopback, ca_file=self.registry.ca_file) as client:
            push_graph(layout, image.manifest, client, repository, tag="1", extra_roots=extra)
        return f"{self.registry.address}/{repository}:1"

    def pull_lazily(self, reference: str) -> None:
        self.containerd.run(["soci", "image", "rpull", "--platform", str(Platform.native()), reference])

    def said_in_container(self, reference: str, *command: str) -> bytes:
        """What a command in a container writes; into a file, since `ctr` may end before it has copied all output."""
        out = self.containerd.folder / "out"
        out.mkdir(exist_ok=True)
        ctr = ["ctr", "run", "--rm", "--snapshotter", "soci", "--platform", str(Platform.native())]
        mount = f"type=bind,src={out},dst=/out,options=rbind:rw"
        script = ["sh", "-c", '"$@" > /out/said', "sh", *command]
        self.containerd.run([*ctr, "--mount", mount, reference, "container", *script])
        return (out / "said").read_bytes()


@pytest.fixture(scope="module")
def base_image(toolchain: Toolchain, or_skip: Callable[[], AbstractContextManager[None]]) -> Layout:
    """A small Debian with Python in one layer above 10 MiB."""
    with or_skip():
        return debian_base_image(toolchain, (AMD64, ARM64))


@pytest.fixture
def scene(toolchain: Toolchain, tmp_path: Path, or_skip: Callable[[], AbstractContextManager[None]]) -> Iterator[Scene]:
    with ExitStack() as stack:
        registry = stack.enter_context(tls_registry(tmp_path / "registry", NAME))
        with or_skip():
            containerd = stack.enter_context(
                private_containerd(
                    tmp_path / "containerd",
                    toolchain,
                    snapshotter=True,
                    names={NAME: LOOPBACK},
                    ca_file=registry.ca_file,
                )
            )
        yield Scene(registry, containerd)


def test_a_natively_indexed_image_runs_from_a_lazily_mounted_layer(
    scene: Scene, base_image: Layout, tmp_path: Path
) -> None:
    options = SociOptions(version=IndexVersion.V1, span_size=SPAN_SIZE)
    conversion = convert(base_image, tmp_path / "indexed", options=options, platforms=[Platform.native()])
    (image,) = conversion.images
    (layer,) = image.layers
    assert layer.size > 10 << 20
    assert layer.ztoc is not None
    reference = scene.push(conversion.layout, image, "shop/web")

    scene.pull_lazily(reference)
    assert len(scene.containerd.fuse_mounts()) == 1
    # It looks whether the layer can be read, and no more.
    assert _fetched(scene.registry, layer) < 100

    member, expected = _large_file(conversion.layout, layer)
    assert member.offset_data > 8 * SPAN_SIZE
    assert scene.said_in_container(reference, "cat", f"/{member.name}") == expected
    reads = scene.registry.reads(layer.digest)
    assert all(read.status == 206 and read.range.startswith("bytes=") for read in reads)
    assert 0 < _fetched(scene.registry, layer) < layer.size // 2

    started = scene.said_in_container(reference, "python3", "-c", "import json; print(json.dumps({'ready': True}))")
    assert started == b'{"ready": true}\n'
    assert _fetched(scene.registry, layer) < layer.size


def test_an_image_without_an_index_is_not_mounted_lazily(scene: Scene, base_image: Layout, tmp_path: Path) -> None:
    """The control: what the test above sees comes from the index."""
    options = SociOptions(version=IndexVersion.V1)
    conversion = convert(base_image, tmp_path / "indexed", options=options, platforms=[Platform.native()])
    (image,) = conversion.images
    reference = scene.push(conversion.layout, image.model_copy(update={"soci_index": None}), "shop/plain")
    scene.pull_lazily(reference)
    assert scene.containerd.fuse_mounts() == []
    assert _fetched(scene.registry, image.layers[0]) >= image.layers[0].size


def test_nothing_is_left_when_the_block_is_left(
    toolchain: Toolchain, tmp_path: Path, or_skip: Callable[[], AbstractContextManager[None]]
) -> None:
    with ExitStack() as stack:
        with or_skip():
            containerd = stack.enter_context(private_containerd(tmp_path, toolchain, snapshotter=True))
        namespace = containerd.env["CONTAINERD_NAMESPACE"]
        mark = containerd.env[VARIABLE]
        assert len(list(marked_processes(mark))) >= 3
    assert not list(marked_processes(mark))
    assert not [target for target, _ in mounted_filesystems() if target.startswith(str(tmp_path))]
    assert not list(Path("/tmp").glob(f"{namespace}*"))
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{namespace}"))


def _fetched(registry: RecordingRegistry, layer: LayerRecord) -> int:
    """The bytes of a layer that have left the registry."""
    return sum(read.sent for read in registry.reads(layer.digest))


def _large_file(layout: Layout, layer: LayerRecord) -> tuple[tarfile.TarInfo, bytes]:
    """A file as it is in the layer."""
    with tarfile.open(layout.blob_path(layer.digest)) as archive:
        member = next(item for item in archive if item.name.endswith(READ_FILE))
        content = archive.extractfile(member)
        assert content is not None
        return member, content.read()
