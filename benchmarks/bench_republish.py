"""Publishing an image of five layers for two platforms, then the same again, then with one layer changed.

Uses only the library, without Prefect, a build or an engine: from the OCI layout of each platform, the SOCI index is
built, the image is pushed by digest, both are joined, the result is verified by sample, and the tag moves. The time
includes all of that, but not the import of the builder's output into a layout. Each publication starts on fresh
workers, one for each platform, one after the other: their caches are empty, and zTOCs are reused only from the tag's
previous image. The layers are machine learning packages, the same ones on both platforms. The registry is Debian's
docker-registry, a separate process. Times are medians of rounds, each with an empty registry.
"""

import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import Figure, Row
from benchmarks.layers import ML_PACKAGES, MadeLayer, Shelf, add_layer, set_image
from benchmarks.parts import Parts, Workbench
from local_stack.registry import docker_registry
from local_stack.toolchain import Toolchain
from soci_pipeline.images.repository_ztocs import RepositoryZtocs
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.collect import reader
from soci_pipeline.publish.join import join
from soci_pipeline.publish.tags import move_tags
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph
from soci_pipeline.soci.index.convert import convert
from soci_pipeline.soci.index.records import PlatformImage, SociOptions
from soci_pipeline.verification.verify import verify

PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm64"))
LAYERS = 5
LEVEL = 2
ROUNDS = 3
REPOSITORY = "bench/image"
TAG = "latest"
AGAIN_GOAL = 0.1
BYTES_GOAL = 1.05


@dataclass
class _NewZtocs:
    """The empty cache of a fresh worker, which records what is built."""

    built: dict[Digest, int] = field(default_factory=dict)

    def get(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str) -> bytes | None:
        return None

    def put(self, layer_digest: Digest, media_type: str, span_size: int, build_tool: str, data: bytes) -> None:
        self.built[layer_digest] = len(data)


@dataclass(frozen=True)
class _Publication:
    """``bytes_sent`` counts blobs and manifests; ``ztocs`` has the sizes of the built ones, by layer."""

    index: Digest
    seconds: float
    bytes_sent: int
    blobs_sent: int
    ztocs: dict[Digest, int]


def compare(bench: Workbench) -> Iterator[Row]:
    packages = ML_PACKAGES[: max(2, bench.scaled(len(ML_PACKAGES)))]
    groups = [packages[place::LAYERS] for place in range(min(LAYERS, len(packages)))]
    shelf, store = Shelf(Toolchain()), Layout.create(bench.folder / "layers")
    layers = [add_layer(store, shelf.tree(f"opt/{number}", group), LEVEL) for number, group in enumerate(groups)]
    # The same files in a folder with another name: another layer of the same size.
    changed = [*layers[:-1], add_layer(store, shelf.tree("opt/new", groups[-1]), LEVEL)]
    before = [_image(bench.folder / "before" / each.slug, store, layers, each) for each in PLATFORMS]
    after = [_image(bench.folder / "after" / each.slug, store, changed, each) for each in PLATFORMS]
    rounds = [_round(bench, before, after) for _ in range(bench.rounds(ROUNDS))]
    first, again, other = ([publications[place] for publications in rounds] for place in range(3))
    yield from _again(first, again)
    yield from _changed(first, other, after)


def _again(first: Sequence[_Publication], again: Sequence[_Publication]) -> Iterator[Row]:
    for before, after in zip(first, again, strict=True):
        if (after.index, after.blobs_sent, after.bytes_sent, after.ztocs) != (before.index, 0, 0, {}):
            raise RuntimeError(f"publishing again was not the same: {before} and {after}")
    note = f"same digest, no blob and no byte sent, no zTOC built; the first sent {first[0].bytes_sent / 1e6:.0f} MB"
    yield Figure(
        "publish again, nothing changed", _time(again), _time(first), "the first publish", "s", AGAIN_GOAL, note
    )


def _changed(first: Sequence[_Publication], other: Sequence[_Publication], after: Sequence[Layout]) -> Iterator[Row]:
    sizes = {layer.digest: layer.size for layer in _layers(after[0])}
    new = [digest for digest in other[0].ztocs if digest in sizes]
    share = sum(sizes[digest] for digest in new) / sum(sizes.values())
    if len(other[0].ztocs) != 1:
        raise RuntimeError(f"{len(other[0].ztocs)} zTOCs were built for one changed layer")
    least = sum(sizes[digest] + other[0].ztocs[digest] for digest in new)
    note = f"1 zTOC built on each worker, {len(sizes) - 1} used again; the layer has {share:.0%} of the bytes"
    yield Figure(
        "one layer changed", _time(other), _time(first), "the first publish", "s", round(share + AGAIN_GOAL, 2), note
    )
    yield Figure(
        "one layer changed, bytes sent",
        other[0].bytes_sent / 1e6,
        least / 1e6,
        "that layer and its zTOC",
        "MB",
        BYTES_GOAL,
        f"the first publish sent {first[0].bytes_sent / 1e6:.0f} MB",
    )


PARTS: Parts = {"publish again; one layer changed": compare}


def _time(publications: Sequence[_Publication]) -> float:
    return statistics.median(publication.seconds for publication in publications)


def _image(folder: Path, store: Layout, layers: Sequence[MadeLayer], platform: Platform) -> Layout:
    image = Layout.create(folder)
    for layer in layers:
        image.link_from(store, layer.descriptor)
    set_image(image, layers, platform)
    return image


def _layers(image: Layout) -> Sequence[Descriptor]:
    manifest = image.read_document(image.root())
    assert isinstance(manifest, ImageManifest)
    return manifest.layers


def _round(bench: Workbench, before: Sequence[Layout], after: Sequence[Layout]) -> list[_Publication]:
    place = bench.folder / "registry"
    with docker_registry(place) as address, RegistryClient(address) as client:
        found = []
        for number, images in enumerate((before, before, after)):
            folder = bench.folder / f"converted-{number}"
            found.append(_publish(client, images, folder))
            shutil.rmtree(folder)
    shutil.rmtree(place)
    return found


def _publish(client: RegistryClient, images: Sequence[Layout], folder: Path) -> _Publication:
    cache = _NewZtocs()
    started = time.perf_counter()
    records: list[PlatformImage] = []
    sent = blobs = 0
    for number, image in enumerate(images):
        store = RepositoryZtocs(client, REPOSITORY, TAG, cache=cache)
        done = convert(image, folder / str(number), options=SociOptions(min_layer_size=0), ztocs=store)
        record = done.images[0]
        for root in (record.manifest, record.soci_index):
            if root is not None:
                report = push_graph(done.layout, root, client, REPOSITORY)
                sent, blobs = sent + report.bytes_uploaded, blobs + report.blobs_uploaded
        records.append(record)
    index = join(records, annotations={}, read=reader(client, REPOSITORY), platforms=PLATFORMS)
    client.manifests.put(REPOSITORY, index.descriptor.digest, index.encode(), index.media_type)
    gate = verify(client, REPOSITORY, index.descriptor.digest, platforms=PLATFORMS)
    if not gate.ok:
        raise RuntimeError(f"the gate found {gate.findings}")
    move_tags(client, REPOSITORY, index.descriptor, [TAG])
    return _Publication(index.descriptor.digest, time.perf_counter() - started, sent, blobs, cache.built)
