"""The toolchain `containerd` with a real containerd, ctr and soci."""

import gzip
import hashlib
import os
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

from local_stack.engine import Engine
from local_stack.toolchain import Toolchain
from soci_pipeline.archive.write import write_archive
from soci_pipeline.containerd.ctr import Containerd
from soci_pipeline.containerd.indexing import index_with_containerd
from soci_pipeline.containerd.soci_release import ensure_soci
from soci_pipeline.containerd.socket import find_socket
from soci_pipeline.errors import EngineUnavailable, ToolFailed, ToolMissing
from soci_pipeline.machine.programs import run
from soci_pipeline.machine.reaper import reap
from soci_pipeline.machine.working_folder import CONTAINERD_RECORD, PREFIX
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import SOCI_INDEX_V1
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.leftovers import REMOVERS
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph
from soci_pipeline.soci.index.records import IndexVersion, SociOptions
from soci_pipeline.soci.reasons import Reason
from soci_pipeline.soci.ztoc.build import build_ztoc
from soci_pipeline.soci.ztoc.codec import decode
from soci_pipeline.tool_versions import ToolTooOld
from tests.support.file_server import serving_files
from tests.support.images import Layer, gzip_layer, image_layout, index_layout
from tests.support.tars import gzipped, hardlink, noise, tar, tar_of, text

pytestmark = pytest.mark.timeout(300)

HERE = Platform.native()
V1 = SociOptions(version=IndexVersion.V1, span_size=1 << 20, min_layer_size=1 << 20)
STORE = Path("/var/lib/soci-snapshotter-grpc")


@dataclass(frozen=True)
class Machine:
    """A containerd with soci beside it, and what can be seen of it from outside."""

    socket: Path
    env: Mapping[str, str]

    def traces(self) -> tuple[set[str], bool]:
        """The namespaces, and whether soci's fixed store is there."""
        printed = run(["ctr", "namespaces", "list", "--quiet"], env=self.env).stdout
        return {name for name in printed.split() if name.startswith(PREFIX)}, STORE.exists()


@pytest.fixture(scope="module")
def machine(engine: Engine, toolchain: Toolchain, or_skip: Callable[[], AbstractContextManager[None]]) -> Machine:
    with or_skip():
        tools = toolchain.ensure(["containerd", "soci"])
        if engine.containerd_socket is None:
            raise EngineUnavailable("the engine's containerd cannot be reached")
    return Machine(engine.containerd_socket, {**engine.env, "PATH": tools["PATH"]})


@pytest.fixture(autouse=True)
def nothing_is_left(machine: Machine) -> Iterator[None]:
    before = machine.traces()
    yield
    assert machine.traces() == before


@pytest.fixture
def image(tmp_path: Path) -> Layout:
    layers = [gzip_layer({"usr/lib/large.bin": noise(3_000_000)}), gzip_layer({"etc/small": text(10_000)})]
    return image_layout(tmp_path / "image", HERE, layers)


def test_each_layer_has_its_ztoc_or_the_reason(machine: Machine, image: Layout, tmp_path: Path) -> None:
    result = index_with_containerd(image, tmp_path / "out", options=V1, socket=machine.socket, env=machine.env)
    (record,) = result.images
    large, small = record.layers
    assert (large.reason, small.ztoc, small.reason) == (None, None, Reason.TOO_SMALL)
    assert record.manifest.digest == image.root().digest
    assert record.soci_index is not None
    index = result.layout.read_document(record.soci_index)
    assert isinstance(index, ImageManifest)
    assert index.config.media_type == SOCI_INDEX_V1
    assert index.subject is not None
    assert index.subject.digest == image.root().digest
    assert [layer.digest for layer in index.layers] == [large.ztoc]
    assert all(result.layout.has(child) for child in index.children)


def test_the_result_is_a_layout_whose_root_is_an_image_index(machine: Machine, image: Layout, tmp_path: Path) -> None:
    result = index_with_containerd(image, tmp_path / "out", options=V1, socket=machine.socket, env=machine.env)
    layout = Layout.open(tmp_path / "out")
    assert layout.root() == result.root
    root = layout.read_document(result.root)
    assert isinstance(root, ImageIndex)
    assert [item.digest for item in root.manifests] == [image.root().digest]
    assert all(layout.has(node) for node in layout.walk(result.root))


def test_both_toolchains_write_the_same_ztoc(machine: Machine, image: Layout, tmp_path: Path) -> None:
    result = index_with_containerd(image, tmp_path / "out", options=V1, socket=machine.socket, env=machine.env)
    large = result.images[0].layers[0]
    tool = decode(result.layout.blob_path(Digest(str(large.ztoc))).read_bytes()).build_tool
    native = build_ztoc(image.blob_path(large.digest), large.media_type, span_size=V1.span_size, build_tool=tool)
    assert native.digest == large.ztoc


def test_the_same_image_gives_the_same_index(machine: Machine, image: Layout, tmp_path: Path) -> None:
    first, second = (
        index_with_containerd(image, tmp_path / name, options=V1, socket=machine.socket, env=machine.env)
        for name in ("a", "b")
    )
    assert first.images == second.images


def test_nothing_large_enough_is_no_failure(machine: Machine, image: Layout, tmp_path: Path) -> None:
    options = SociOptions(version=IndexVersion.V1)
    result = index_with_containerd(image, tmp_path / "out", options=options, socket=machine.socket, env=machine.env)
    (record,) = result.images
    assert record.soci_index is None
    assert [layer.reason for layer in record.layers] == [Reason.TOO_SMALL] * 2


def test_attestations_stay_beside_their_image(machine: Machine, tmp_path: Path) -> None:
    source = index_layout(tmp_path / "image", (HERE,), attestations=True)
    options = SociOptions(version=IndexVersion.V1, min_layer_size=0)
    result = index_with_containerd(source, tmp_path / "out", options=options, socket=machine.socket, env=machine.env)
    (record,) = result.images
    (attestation,) = record.attestations
    assert attestation.annotations["vnd.docker.reference.digest"] == str(record.manifest.digest)
    assert result.root.digest == source.root().digest


def test_a_foreign_platform_is_indexed_as_well(machine: Machine, tmp_path: Path) -> None:
    other = Platform("linux", "arm64" if HERE.architecture == "amd64" else "amd64")
    source = image_layout(tmp_path / "image", other)
    options = SociOptions(version=IndexVersion.V1, min_layer_size=0)
    result = index_with_containerd(source, tmp_path / "out", options=options, socket=machine.socket, env=machine.env)
    assert result.images[0].platform == other
    assert all(layer.ztoc for layer in result.images[0].layers)


def test_two_runs_at_once_do_not_meet(machine: Machine, image: Layout, tmp_path: Path) -> None:
    def index(name: str) -> object:
        where = tmp_path / name / "out"
        return index_with_containerd(image, where, options=V1, socket=machine.socket, env=machine.env).images

    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(index, ["a", "b", "c"])
    assert all(other == first for other in others)


def test_the_result_can_be_published_with_its_referrer(
    machine: Machine, image: Layout, tmp_path: Path, embedded_registry: str
) -> None:
    result = index_with_containerd(image, tmp_path / "out", options=V1, socket=machine.socket, env=machine.env)
    (record,) = result.images
    assert record.soci_index is not None
    with RegistryClient(embedded_registry) as client:
        push_graph(result.layout, record.manifest, client, "team/app")
        push_graph(result.layout, record.soci_index, client, "team/app")
        listed = client.referrers.list("team/app", record.manifest.digest, SOCI_INDEX_V1)
    assert [item.digest for item in listed] == [record.soci_index.digest]


def test_a_damaged_layer_is_an_error_and_leaves_nothing(machine: Machine, tmp_path: Path) -> None:
    broken = gzipped(tar_of({"a": noise(2_000_000)}))[:-5000]
    source = image_layout(tmp_path / "image", HERE, [Layer(broken)])
    with pytest.raises(Exception, match="soci") as caught:
        index_with_containerd(source, tmp_path / "out", options=V1, socket=machine.socket, env=machine.env)
    assert type(caught.value).__name__ == "ToolFailed"


def test_a_missing_soci_is_found_before_anything_is_imported(machine: Machine, image: Layout, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ctr", "unshare", "sh", "mount"):
        (folder / name).symlink_to(run(["sh", "-c", f"command -v {name}"], env=machine.env).stdout.strip())
    env = {**machine.env, "PATH": str(folder)}
    with pytest.raises(ToolMissing, match="'soci'"):
        index_with_containerd(image, tmp_path / "out", options=V1, socket=machine.socket, env=env)
    assert not (tmp_path / "out").exists()


def test_v2_with_a_soci_that_is_too_old_says_which_is_needed(machine: Machine, image: Layout, tmp_path: Path) -> None:
    if "0.4" not in run(["soci", "--version"], env=machine.env).stdout:
        pytest.skip("soci here is new enough")
    with pytest.raises(ToolTooOld, match=r"0\.14\.0 is required for `convert --standalone`"):
        index_with_containerd(image, tmp_path / "out", options=SociOptions(), env=machine.env)


def test_a_containerd_that_is_not_there_is_named(machine: Machine, image: Layout, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="nothing"):
        index_with_containerd(image, tmp_path / "out", options=V1, socket=tmp_path / "nothing.sock", env=machine.env)


def test_the_socket_is_found_by_the_environment_and_under_the_engine(machine: Machine, engine: Engine) -> None:
    assert find_socket(env={"CONTAINERD_ADDRESS": str(machine.socket)}) == machine.socket
    if engine.private:
        assert find_socket(env={"DOCKER_HOST": engine.docker_host}, usual=()) == machine.socket


def test_what_a_killed_run_left_in_containerd_is_reaped(machine: Machine, tmp_path: Path) -> None:
    source = image_layout(tmp_path / "image", HERE, [gzip_layer({"a": noise(40_000_000)}, level=1)])
    script = textwrap.dedent(f"""
        from pathlib import Path
        from soci_pipeline.containerd.indexing import index_with_containerd
        from soci_pipeline.oci.layout import Layout
        from soci_pipeline.soci.index.records import SociOptions
        index_with_containerd(
            Layout.open(Path({str(source.path)!r})), Path({str(tmp_path / "work" / "out")!r}),
            options=SociOptions(version="v1", min_layer_size=0), socket={str(machine.socket)!r},
        )
    """)
    before = machine.traces()
    with subprocess.Popen([sys.executable, "-c", script], env=dict(machine.env), stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 120
        while machine.traces() == before:
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.kill()
    # The program that the killed process had started ends by itself, and until then the namespace may not be empty.
    while not (reaped := reap(tmp_path / "work", REMOVERS, env=machine.env).removed[CONTAINERD_RECORD]):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert len(reaped) == 1


def test_a_worker_without_soci_fetches_the_release_and_indexes_with_it(
    machine: Machine, toolchain: Toolchain, image: Layout, tmp_path: Path
) -> None:
    program = toolchain.program("soci").read_bytes()
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as packed:
        info = tarfile.TarInfo("soci")
        info.size, info.mode = len(program), 0o755
        packed.addfile(info, BytesIO(program))
    body = gzip.compress(archive.getvalue(), 1, mtime=0)
    path = f"/v0.4.1/soci-snapshotter-0.4.1-linux-{HERE.architecture}.tar.gz"
    with serving_files({path: (200, body)}) as server:
        fetched = ensure_soci(
            "0.4.1", sha256=hashlib.sha256(body).hexdigest(), cache=tmp_path / "cache", base_url=server.address
        )
    env = {**machine.env, "PATH": os.pathsep.join([str(fetched.parent), machine.env["PATH"]])}
    result = index_with_containerd(image, tmp_path / "out", options=V1, socket=machine.socket, env=env)
    assert result.images[0].soci_index is not None


def test_a_namespace_is_purged_with_all_that_is_in_it(machine: Machine, tmp_path: Path) -> None:
    containerd = Containerd(machine.socket, f"{PREFIX}purged", machine.env)
    run(["ctr", "leases", "create", "x"], env=containerd.environment)
    containerd.purge()
    containerd.purge()


def test_overlayfs_cannot_make_a_hard_link_to_a_layer_below(machine: Machine, tmp_path: Path) -> None:
    """The reason why verification does not count such a target: each layer is unpacked into an empty folder."""
    below = gzip_layer({"base/file": text(1000)})
    above = Layer(gzipped(tar([hardlink("a", "base/file")])))
    layout = image_layout(tmp_path / "image", HERE, [below, above])
    named = layout.root().annotated(annotations={"io.containerd.image.name": "docker.io/library/linked:1"})
    archive = write_archive(layout, tmp_path / "image.tar", roots=[named])
    containerd = Containerd(machine.socket, f"{PREFIX}linked", machine.env)
    try:
        with pytest.raises(ToolFailed, match=r"base/file .*/a: no such file or directory"):
            run(["ctr", "images", "import", "--snapshotter", "overlayfs", archive], env=containerd.environment)
    finally:
        containerd.purge()
