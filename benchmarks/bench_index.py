"""`soci-pipeline index` on an image of several gigabytes in a registry: memory and disk usage.

The image is one layer of more than 2.5 GB, the hardest case, in the embedded registry, a separate process. The command
runs with `--jobs 1` and without its cache. Memory is its peak; disk is everything that the process wrote to file
systems on a disk, including what it removed again, and therefore an upper bound of its usage.
"""

import os
from collections.abc import Iterator

from benchmarks.figures import Figure, Row
from benchmarks.layers import prepared
from benchmarks.parts import Parts, Workbench
from benchmarks.processes import measured, own_command
from local_stack.registry import embedded_registry
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph

REPOSITORY = "bench/large"
MEMORY_GOAL = 256 << 20
DISK_GOAL = 100 << 20


def index(bench: Workbench) -> Iterator[Row]:
    layer = prepared("large", bench.scale)
    # Writes to an in-memory file system would not be counted.
    temporary = bench.folder / "tmp"
    temporary.mkdir()
    with embedded_registry(bench.folder / "registry") as address:
        with RegistryClient(address) as client:
            push_graph(layer.image, layer.image.root(), client, REPOSITORY, tag="v1")
        argv = own_command("index", f"{address}/{REPOSITORY}:v1", "--jobs", "1", "--no-cache", "--json")
        env = os.environ | {"TMPDIR": str(temporary), "SOCI_PIPELINE_WORK_FOLDER": str(temporary)}
        usage = measured(argv, env=env)
        again = measured(argv, env=env)
    what = f"index an image of {layer.layer.size / 1e9:.2f} GB in a registry"
    note = f"{usage.wall_s:.1f} s of wall, {usage.cpu_s:.1f} s of CPU; again, with nothing to do, {again.wall_s:.1f} s"
    yield Figure(f"{what}, peak memory", usage.peak_bytes / 2**20, MEMORY_GOAL / 2**20, "the limit", "MiB", 1.0, note)
    yield Figure(f"{what}, disk", usage.written_bytes / 2**20, DISK_GOAL / 2**20, "the limit", "MiB", 1.0)


PARTS: Parts = {"index an image in a registry": index}
