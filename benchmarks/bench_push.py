"""Pushing images over loopback, compared with `oras cp` and `ctr image push`; the goal is 1.1 times the faster of them.

The registry is Debian's docker-registry, new for every push; each tool pushes from its native image store: an OCI
layout for us and `oras`, containerd's store for `ctr`. Each figure is the median of several alternating runs. The goal
applies to the time inside a running process, such as a worker; the command's time also includes the start of Python and
of the library, which matters less for the larger image. Memory is the peak of the command that pushes 5 GB.
"""

import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.figures import Figure, Row
from benchmarks.parts import Parts, Workbench
from benchmarks.processes import Usage, measured, own_command
from local_stack.engine import Engine, running_engine
from local_stack.registry import docker_registry
from local_stack.toolchain import Toolchain
from soci_pipeline.errors import EngineUnavailable, ToolMissing
from soci_pipeline.machine.programs import run as run_program
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest
from soci_pipeline.oci.media_types import OCI_CONFIG, OCI_LAYER_GZIP
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph

SMALL = (200, 80, 40, 10, 2)
LARGE = (600, 400, 200, 100, 28)
TAG = "org.opencontainers.image.ref.name"
GOAL = 1.1
HUGE = 5_000_000_000
MEMORY_GOAL = 150 << 20


@dataclass
class _Times:
    """Seconds of each run."""

    inside: list[float] = field(default_factory=list)
    command: list[float] = field(default_factory=list)
    oras: list[float] = field(default_factory=list)
    ctr: list[float] = field(default_factory=list)


def compare(bench: Workbench, *, sizes: Sequence[int], name: str, rounds: int) -> Iterator[Row]:
    env = Toolchain().ensure(["oras", "docker-registry"])
    image = _image(bench.folder / "image", [bench.scaled(size) for size in sizes])
    times = _Times()
    with _containerd(bench.folder, image) as push_by_ctr:
        for _ in range(bench.rounds(rounds)):
            times.oras.append(_oras(bench.folder, image, env).wall_s)
            times.inside.append(_inside(bench.folder, image))
            times.command.append(_ours(bench.folder, image).wall_s)
            if push_by_ctr is not None:
                times.ctr.append(push_by_ctr())
    medians = {"oras cp": statistics.median(times.oras)}
    if times.ctr:
        medians["ctr image push"] = statistics.median(times.ctr)
    faster = min(medians, key=lambda tool: medians[tool])
    said = ", ".join(f"{tool} {seconds:.2f} s" for tool, seconds in medians.items())
    note = said if times.ctr else f"{said}; containerd could not be had"
    inside, command = statistics.median(times.inside), statistics.median(times.command)
    yield Figure(f"push over loopback, {name}", inside, medians[faster], faster, "s", GOAL, note)
    yield Figure(f"the same as a command, {name}", command, medians[faster], faster, "s", None)


def memory(bench: Workbench) -> Iterator[Row]:
    image = _huge(bench.folder / "huge", bench.scaled(HUGE))
    usage = _ours(bench.folder, image)
    note = f"{usage.wall_s:.1f} s of wall, {usage.cpu_s:.1f} s of CPU"
    bound = MEMORY_GOAL / 2**20
    yield Figure("push, peak memory, one layer of 5 GB", usage.peak_bytes / 2**20, bound, "the limit", "MiB", 1.0, note)
    small = _ours(bench.folder, _image(bench.folder / "small", [bench.scaled(size) for size in SMALL]))
    yield Figure(
        "push, peak memory, 5 GB", usage.peak_bytes / 2**20, small.peak_bytes / 2**20, "332 MB", "MiB", 1.1, "flat is 1"
    )


PARTS: Parts = {
    "push over loopback, 332 MB": partial(compare, sizes=SMALL, name="332 MB", rounds=5),
    "push over loopback, 1.3 GB": partial(compare, sizes=LARGE, name="1.3 GB", rounds=3),
    "push, peak memory": memory,
}


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
    with layout.writer() as blob:
        for _ in range(megabytes):
            blob.write(os.urandom(1 << 20))
    assert blob.digest is not None
    return Descriptor(media_type=OCI_LAYER_GZIP, digest=blob.digest, size=blob.written)


def _huge(path: Path, size: int) -> Layout:
    """Create an image with one sparse layer of zeros, so that only the registry's copy takes space."""
    layout = Layout.create(path)
    hollow = path / "hollow"
    with hollow.open("wb") as file:
        file.truncate(size)
    with hollow.open("rb") as file:
        layer = Descriptor(media_type=OCI_LAYER_GZIP, digest=Digest.of_stream(file), size=size)
    hollow.rename(layout.blob_path(layer.digest))
    config = layout.add_bytes(b"{}", OCI_CONFIG)
    layout.set_roots([layout.add_document(ImageManifest(config=config, layers=(layer,)))])
    return layout


@contextmanager
def _registry(folder: Path) -> Iterator[str]:
    place = folder / "registry"
    shutil.rmtree(place, ignore_errors=True)
    # Write back the page cache now, so that the previous run's data is not written during this one.
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
        return measured(own_command("push", str(image.path), f"{address}/bench/image:v1", "--json"))


def _oras(folder: Path, image: Layout, env: dict[str, str]) -> Usage:
    with _registry(folder) as address:
        source, target = f"{image.path}:v1", f"{address}/bench/image:v1"
        return measured(["oras", "cp", "--from-oci-layout", source, target, "--to-plain-http"], env=env)


@contextmanager
def _containerd(folder: Path, image: Layout) -> Iterator[Callable[[], float] | None]:
    """Yield a push by `ctr` from a containerd that has the image; None if containerd is unavailable."""
    with ExitStack() as stack:
        try:
            engine = stack.enter_context(running_engine(folder / "engine", private=True))
        except (ToolMissing, EngineUnavailable) as error:
            print(f"    {error.reason}", file=sys.stderr)
            yield None
            return
        yield _imported(folder, image, engine)


def _imported(folder: Path, image: Layout, engine: Engine) -> Callable[[], float]:
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

    return push
