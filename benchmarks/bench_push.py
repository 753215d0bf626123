"""Pushing an image of 332 MB and one of 1.3 GB over loopback, against `oras cp` and `ctr image push`.

The registry is Debian's docker-registry, fresh for every push; each tool pushes from what it keeps images in: an OCI
layout for us and `oras`, containerd's store for `ctr`. Each figure is the median of several runs that take turns. The
goal is for the time inside a process that runs already, as a worker does; the command's time holds the start of Python
and of the library too, which the larger image dilutes. Memory is the peak of the command that pushes 5 GB.
"""

import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.figures import Figure, Usage, measured
from soci_pipeline.errors import EngineUnavailable, ToolMissing
from soci_pipeline.local.engine import running_engine
from soci_pipeline.local.registry import docker_registry
from soci_pipeline.local.toolchain import Toolchain
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest
from soci_pipeline.oci.media_types import OCI_CONFIG, OCI_LAYER_GZIP
from soci_pipeline.process import run as run_program
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph

SMALL = (200, 80, 40, 10, 2)
LARGE = (600, 400, 200, 100, 28)
ROUNDS = 5
TAG = "org.opencontainers.image.ref.name"
GOAL = 1.1
HUGE = 5_000_000_000
MEMORY_GOAL = 150 << 20


def run(folder: Path) -> Sequence[Figure]:
    tools = Toolchain().ensure(["oras", "docker-registry"])
    small = _image(folder / "small", SMALL)
    figures = _compared(folder, small, tools, "332 MB", ROUNDS)
    shutil.rmtree(small.path)
    large = _image(folder / "large", LARGE)
    figures += _compared(folder, large, tools, "1.3 GB", 3)
    shutil.rmtree(large.path)
    peak = _ours(folder, _huge(folder / "huge")).peak_bytes
    figures.append(Figure("push, peak memory, 5 GB", peak / 2**20, MEMORY_GOAL / 2**20, "the bound", "MiB", 1.0))
    return figures


def _compared(folder: Path, image: Layout, tools: dict[str, str], size: str, rounds: int) -> list[Figure]:
    env = os.environ | tools
    inside: list[float] = []
    command: list[float] = []
    oras: list[float] = []
    ctr: list[float] = []
    with _containerd(folder, image) as push_by_ctr:
        for _ in range(rounds):
            oras.append(_oras(folder, image, env).wall_s)
            inside.append(_inside(folder, image))
            command.append(_ours(folder, image).wall_s)
            if push_by_ctr is not None:
                ctr.append(push_by_ctr())
    best = min(statistics.median(times) for times in (oras, ctr) if times)
    name = "oras cp" if best == statistics.median(oras) else "ctr image push"
    note = f"ctr {statistics.median(ctr):.2f} s" if ctr else "containerd could not be had, so ctr was not measured"
    return [
        Figure(f"push over loopback, {size}", statistics.median(inside), best, name, "s", GOAL, note),
        Figure(f"the same as a command, {size}", statistics.median(command), best, name, "s", None),
    ]


def _image(path: Path, megabytes: Sequence[int]) -> Layout:
    layout = Layout.create(path)
    config = layout.add_bytes(
        b'{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}', OCI_CONFIG
    )
    layers = tuple(_layer(layout, size) for size in megabytes)
    manifest = layout.add_document(ImageManifest(config=config, layers=layers))
    layout.set_roots([manifest.annotated(annotations={TAG: "v1"})])
    return layout


def _layer(layout: Layout, megabytes: int) -> Descriptor:
    # In pieces: a child's peak of memory begins with what its parent held.
    with layout.writer() as blob:
        for _ in range(megabytes):
            blob.write(os.urandom(1 << 20))
    assert blob.digest is not None
    return Descriptor(media_type=OCI_LAYER_GZIP, digest=blob.digest, size=blob.written)


def _huge(path: Path) -> Layout:
    """An image with one layer of 5 GB, of zeros and sparse: only the registry's copy takes room."""
    layout = Layout.create(path)
    hollow = path / "hollow"
    with hollow.open("wb") as file:
        file.truncate(HUGE)
    with hollow.open("rb") as file:
        layer = Descriptor(media_type=OCI_LAYER_GZIP, digest=Digest.of_stream(file), size=HUGE)
    hollow.rename(layout.blob_path(layer.digest))
    config = layout.add_bytes(b"{}", OCI_CONFIG)
    layout.set_roots([layout.add_document(ImageManifest(config=config, layers=(layer,)))])
    return layout


@contextmanager
def _registry(folder: Path) -> Iterator[str]:
    place = folder / "registry"
    shutil.rmtree(place, ignore_errors=True)
    # What the run before left in the page cache is not written out on this one's time.
    os.sync()
    with docker_registry(place) as address:
        yield address
    shutil.rmtree(place, ignore_errors=True)


def _inside(folder: Path, image: Layout) -> float:
    with _registry(folder) as address, RegistryClient(address) as client:
        started = time.perf_counter()
        push_graph(image, image.root(), client, "bench/image", tag="v1")
        return time.perf_counter() - started


def _ours(folder: Path, image: Layout) -> Usage:
    with _registry(folder) as address:
        return measured(
            [sys.executable, "-m", "soci_pipeline", "push", str(image.path), f"{address}/bench/image:v1", "--json"]
        )


def _oras(folder: Path, image: Layout, env: dict[str, str]) -> Usage:
    with _registry(folder) as address:
        source, target = f"{image.path}:v1", f"{address}/bench/image:v1"
        return measured(["oras", "cp", "--from-oci-layout", source, target, "--to-plain-http"], env=env)


@contextmanager
def _containerd(folder: Path, image: Layout) -> Iterator[Callable[[], float] | None]:
    """A push by `ctr` out of the store of a containerd that has the image; None where there is no containerd."""
    with ExitStack() as stack:
        try:
            engine = stack.enter_context(running_engine(folder / "engine", private=True))
        except (ToolMissing, EngineUnavailable):
            yield None
            return
        ctr = ["ctr", "--address", str(engine.containerd_socket), "--namespace", "bench"]
        archive = folder / "image.tar"
        run_program(["tar", "-C", str(image.path), "-cf", str(archive), "."])
        run_program([*ctr, "image", "import", "--no-unpack", "--base-name", "bench", str(archive)], env=engine.env)
        archive.unlink()

        def push() -> float:
            with _registry(folder) as address:
                target = f"{address}/bench/image:v1"
                run_program([*ctr, "image", "tag", "--force", "bench:v1", target], env=engine.env)
                argv = [*ctr, "image", "push", "--plain-http", target]
                return measured(argv, env=dict(engine.env)).wall_s

        yield push
