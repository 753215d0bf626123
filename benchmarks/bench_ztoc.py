"""The zTOC of one layer: `soci-pipeline ztoc` against `soci create` of Debian's soci 0.4.1 over its own containerd.

Whole processes, each figure the median of runs that take turns. The image is in containerd's store beforehand, and
what containerd itself does for `soci create` is not counted against it. Every figure of ours names the library that
inflates; the goals are for zlib-ng. The layers are made of packages for Python and Debian, and lie in the toolchain
folder afterwards. Peak memory is against a bound of 256 MiB.

`soci convert --standalone` of soci 0.15, which the other goals name, is in no package archive and so was not measured.
On a machine of two cores it took 19.9 s (19.2 s of CPU) for a layer of 1.98 GB of tar and 74,134 entries, where
`soci create` took 30 s (26 s of CPU): about 0.66 of its wall time and 0.74 of its CPU time.
"""

import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import Figure, Usage, measured
from benchmarks.layers import BenchLayer, Shelf
from soci_pipeline.errors import ToolMissing
from soci_pipeline.local.toolchain import Toolchain
from soci_pipeline.process import run as run_program
from soci_pipeline.soci.inflate import ENGINE_VARIABLE, engine
from tests.support.snapshotter import PrivateContainerd, private_containerd

ROUNDS = 3
ML_GOALS = (0.25, 0.20)
MEMORY_GOAL = 256 << 20

Indexer = Callable[[], Usage]


@dataclass
class Runs:
    """What the runs of one program took; medians of them."""

    usages: list[Usage] = field(default_factory=list)

    @property
    def wall(self) -> float:
        return statistics.median(usage.wall_s for usage in self.usages)

    @property
    def cpu(self) -> float:
        return statistics.median(usage.cpu_s for usage in self.usages)

    @property
    def peak(self) -> int:
        return max(usage.peak_bytes for usage in self.usages)


def run(folder: Path) -> Sequence[Figure]:
    toolchain = Toolchain()
    shelf = Shelf(toolchain)
    layers = [shelf.machine_learning(), shelf.entry_heavy(), shelf.debian()]
    engines = ["zlib-ng", "zlib"] if engine().is_fast else ["zlib"]
    figures: list[Figure] = []
    with _containerd(folder, toolchain) as containerd:
        for layer in layers if containerd is not None else ():
            assert containerd is not None
            goals = ML_GOALS if layer is layers[0] else (None, None)
            figures += _compared(folder, layer, containerd, engines, goals)
    return [*figures, _memory(folder, shelf.large(), engines[0])]


def _compared(
    folder: Path,
    layer: BenchLayer,
    containerd: PrivateContainerd,
    engines: Sequence[str],
    goals: tuple[float | None, float | None],
) -> list[Figure]:
    reference = _reference(folder, layer, containerd)
    theirs = Runs()
    ours = {name: Runs() for name in engines}
    for _ in range(ROUNDS):
        for name in engines:
            ours[name].usages.append(_native(folder, layer, name)())
        theirs.usages.append(reference())
    figures: list[Figure] = []
    for name, runs in ours.items():
        cpu_goal, wall_goal = goals if name == "zlib-ng" else (None, None)
        # Times of a busy machine are worth less, the wall's above all.
        note = f"{layer.described}; load average {os.getloadavg()[0]:.0f}" if name == engines[0] else ""
        what = f"zTOC of {layer.name}, {name}"
        figures += [
            Figure(f"{what}, CPU", runs.cpu, theirs.cpu, "soci create 0.4.1", "s", cpu_goal, note),
            Figure(f"{what}, wall", runs.wall, theirs.wall, "soci create 0.4.1", "s", wall_goal),
        ]
        print(f"    {what}: peak {runs.peak >> 20} MiB, soci's {theirs.peak >> 20} MiB", file=sys.stderr, flush=True)
    return figures


def _memory(folder: Path, layer: BenchLayer, name: str) -> Figure:
    usage = _native(folder, layer, name)()
    note = f"{layer.described}; {usage.wall_s:.1f} s of wall, {usage.cpu_s:.1f} s of CPU"
    what = f"zTOC of a layer of 2.5 GB, {name}, peak memory"
    return Figure(what, usage.peak_bytes / 2**20, MEMORY_GOAL / 2**20, "the bound", "MiB", 1.0, note)


def _native(folder: Path, layer: BenchLayer, name: str) -> Indexer:
    command = [sys.executable, "-m", "soci_pipeline", "ztoc", str(layer.path), "--json"]
    options = ["--media-type", layer.layer.media_type, "--output", str(folder / "ztoc")]
    return lambda: measured([*command, *options], env=os.environ | {ENGINE_VARIABLE: name})


def _reference(folder: Path, layer: BenchLayer, containerd: PrivateContainerd) -> Indexer:
    """`soci create` in the namespaces of a containerd that gets the image now; its own process alone is measured."""
    name = f"bench.test/{layer.layer.digest.hex[:12]}:v1"
    archive = folder / "image.tar"
    run_program(["tar", "-C", layer.image.path, "-cf", archive, "."], timeout=600)
    containerd.run(["ctr", "image", "import", "--no-unpack", "--index-name", name, archive], timeout=600)
    archive.unlink()
    namespaces = [f"--mount=/proc/{containerd.holder}/ns/mnt", f"--pid=/proc/{containerd.holder}/ns/pid_for_children"]
    argv = ["nsenter", *namespaces, "soci", "create", "--min-layer-size", "0", name]

    def create() -> Usage:
        # Without what it has stored, every run does all of the work.
        stored = containerd.folder / "soci" / "content" / "blobs" / "sha256"
        for blob in stored.glob("*") if stored.is_dir() else ():
            blob.unlink()
        usage = measured(argv, env=containerd.env)
        if not any(stored.glob("*")):
            raise RuntimeError("soci create has written nothing")
        return usage

    return create


@contextmanager
def _containerd(folder: Path, toolchain: Toolchain) -> Iterator[PrivateContainerd | None]:
    with ExitStack() as stack:
        try:
            started = stack.enter_context(private_containerd(folder / "containerd", toolchain))
        except ToolMissing as error:
            print(f"    {error.reason}", file=sys.stderr)
            yield None
            return
        yield started
