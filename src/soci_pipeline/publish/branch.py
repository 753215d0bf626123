"""The work for one platform, step by step: source, build, import, index, push by digest.

Each step is a function of a `Branch` and can be repeated: it starts from what the previous step left in the run's
folder, and first removes its own leftovers. Prefect's tasks call them one by one.
"""

import contextlib
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from soci_pipeline.builders.builder import Connect, choose
from soci_pipeline.builders.import_image import import_image
from soci_pipeline.builders.prebuilt import image_name
from soci_pipeline.builders.request import BuildRequest, fill
from soci_pipeline.errors import SociPipelineError
from soci_pipeline.git import source
from soci_pipeline.git.sign_in import GitCredentials
from soci_pipeline.images.repository_ztocs import RepositoryZtocs
from soci_pipeline.log import logger
from soci_pipeline.machine.program_output import concealing
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest
from soci_pipeline.publish import registries
from soci_pipeline.publish.build_cache import BuildCache, CacheMode
from soci_pipeline.publish.build_inputs import ToolchainName
from soci_pipeline.publish.docker_login import docker_environment
from soci_pipeline.publish.request import BranchRequest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.push import push_graph
from soci_pipeline.settings import Settings
from soci_pipeline.soci.index.convert import Conversion, convert
from soci_pipeline.soci.index.records import IndexVersion, PlatformImage
from soci_pipeline.soci.ztoc.store import CacheFolder, ZtocStore
from soci_pipeline.text import counted

if TYPE_CHECKING:
    import boto3

OnProgress = Callable[[int, int], None]
"""Called with the number of bytes uploaded so far and the total."""


@dataclass(frozen=True, slots=True)
class Built:
    """The output of a builder, and how the import should read it (see `Builder`)."""

    path: Path
    compress: bool
    check_diff_ids: bool


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The bytes that an upload sent, and those that the registry already had."""

    sent: int
    skipped: int
    blobs_sent: int


@dataclass(frozen=True)
class Branch:
    """The work for one platform: its request, the run's own folder, and the duration of each step."""

    request: BranchRequest
    folder: Path
    settings: Settings
    timings: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the duration of the block, in seconds, to that of the step."""
        begin = time.monotonic()
        try:
            yield
        finally:
            spent = round(time.monotonic() - begin, 3)
            self.timings[step] = self.timings.get(step, 0.0) + spent

    def fresh(self, name: str) -> Path:
        """Return the path for a step's result, after removing the result of an earlier attempt."""
        path = self.folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return path


def check_out(branch: Branch, *, credentials: GitCredentials | None = None) -> Path:
    """Fetch the files of the commit."""
    with branch.timed("source"):
        return source.check_out(branch.request.source, branch.fresh("source"), credentials=credentials)


def build(
    branch: Branch,
    tree: Path,
    *,
    secrets: Mapping[str, Path] | None = None,
    connect: Connect | None = None,
    aws: "boto3.Session | None" = None,
) -> Built:
    """Run the chosen builder on the files; return the archive or layout that it wrote.

    ``secrets`` maps the ids of build secrets to files; their contents are removed from the builder's output.
    ``connect`` opens the registry of a prebuilt image; with None, this machine's settings and credentials are used.
    ``aws`` is the session for a build cache on ECR.
    """
    asked, settings = branch.request, branch.settings.build
    cache = _cache(asked)
    request = BuildRequest(
        source=tree,
        context=asked.context,
        dockerfile=asked.dockerfile,
        target=asked.target,
        build_args=asked.build_args,
        secrets=dict(secrets or {}),
        platform=asked.platform,
        source_date_epoch=asked.source.commit_time,
        attestations=asked.attestations,
        cache_from=cache.cache_from,
        cache_to=cache.cache_to,
        buildx_builder=settings.buildx_builder,
        prebuilt=asked.prebuilt,
        pull=asked.pull,
        network=settings.network,
    )
    with (
        branch.timed("build"),
        concealing(path.read_bytes() for path in request.secrets.values()),
        _environment(branch, cache, aws) as env,
    ):
        opened = connect or partial(registries.connect, settings=branch.settings)
        builder = choose(asked.builder.value, request, env=env, connect=opened)
        logger().info("building %s with %s", asked.platform, builder.name)
        path = builder.build(request, branch.fresh("built"))
    return Built(path, compress=builder.compresses, check_diff_ids=not builder.trusted)


def _cache(asked: BranchRequest) -> BuildCache:
    if asked.cache is CacheMode.OFF:
        return BuildCache()
    cache = BuildCache.of(asked.cache_reference, asked.image, asked.platform, asked.source)
    logger().info(
        "build cache: reads %s", ", ".join(map(str, cache.imports)) or "nothing, because the source names no branch"
    )
    if cache.export is None:
        logger().info("build cache: not written, because no branch has the commit %s", asked.source.commit)
    return cache


@contextlib.contextmanager
def _environment(branch: Branch, cache: BuildCache, aws: "boto3.Session | None") -> Iterator[dict[str, str] | None]:
    """Yield the environment of the builder's programs; with a cache, docker gets the login for its registry."""
    if not cache.imports:
        yield None
        return
    place = cache.imports[0]
    connection = registries.connection_to(place, branch.settings, aws=aws)
    with docker_environment(place.registry, connection.credentials) as env:
        yield env


def import_built(branch: Branch, built: Built) -> Layout:
    """Verify the builder's output and import it into an OCI layout."""
    with branch.timed("import"):
        return import_image(
            built.path,
            branch.fresh("image"),
            platform=branch.request.platform,
            ref=image_name(fill(branch.request.prebuilt or "", branch.request.platform)),
            compress=built.compress,
            check_diff_ids=built.check_diff_ids,
        )


def index(branch: Branch, layout: Layout, client: RegistryClient | None = None) -> Conversion:
    """Index the image's layers for lazy loading with the requested toolchain.

    With ``client``, the native toolchain reuses zTOCs of the image under `SociOptions.reuse_from`.
    """
    asked, settings = branch.request, branch.settings
    with branch.timed("index"):
        if asked.toolchain is ToolchainName.CONTAINERD:
            # The import takes a tenth of a second, and a publication may end before it is needed.
            from soci_pipeline.containerd.indexing import index_with_containerd

            return index_with_containerd(
                layout,
                branch.fresh("indexed"),
                options=asked.soci,
                socket=settings.containerd.address,
                env=_with_soci(settings),
            )
        store: ZtocStore = CacheFolder(settings.work.ztoc_cache)
        if client is not None and asked.soci.reuse_from is not None:
            store = RepositoryZtocs(client, asked.image.repository, asked.soci.reuse_from, cache=store)
        return convert(layout, branch.fresh("indexed"), options=asked.soci, jobs=settings.work.jobs, ztocs=store)


def _with_soci(settings: Settings) -> dict[str, str]:
    """Return the environment of the indexing tools, with the pinned release of soci if none is installed."""
    from soci_pipeline.containerd.soci_release import environment_with_soci

    wanted = settings.containerd
    return environment_with_soci(
        os.environ,
        version=wanted.soci_version,
        sha256=wanted.soci_sha256,
        base_url=wanted.soci_base_url,
        cache=settings.work.folder / "soci",
    )


def upload_layers(
    branch: Branch, layout: Layout, client: RegistryClient, stop: threading.Event, on_progress: OnProgress | None = None
) -> "Uploaded":
    """Upload the layers of the imported image, largest first, while another thread indexes them.

    Indexing changes manifests, never layers, so no upload is wasted. ``stop`` ends it with
    `soci_pipeline.retry.Stopped`.
    """
    layers = sorted(_layers(layout), key=lambda layer: layer.size, reverse=True)
    total, done = sum(layer.size for layer in layers), 0
    uploaded: list[int] = []

    def moved(count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, total)

    with branch.timed("upload"):
        for layer in layers:
            before = done
            opener = partial(layout.open_verified, layer)
            if client.blobs.upload(branch.request.image.repository, layer, opener, on_bytes=moved, stop=stop):
                uploaded.append(layer.size)
            moved(before + layer.size - done)
    return Uploaded(sum(uploaded), total - sum(uploaded), len(uploaded))


def push(
    branch: Branch, conversion: Conversion, client: RegistryClient, *, before: Uploaded | None = None
) -> PlatformImage:
    """Push the indexed image by digest, children before parents, without a tag; return the branch's record.

    ``before`` is the result of `upload_layers`; those layers are skipped here and counted as sent.
    """
    image = image_of(branch, conversion)
    roots = [image.manifest, *image.attestations]
    if image.soci_index is not None:
        # A v1 SOCI index has the image as its subject, which must be pushed first.
        roots.append(image.soci_index)
    uploaded = skipped = 0
    with branch.timed("push"):
        for root in roots:
            report = push_graph(
                conversion.layout, root, client, branch.request.image.repository, jobs=branch.settings.registry.jobs
            )
            uploaded, skipped = uploaded + report.bytes_uploaded, skipped + report.bytes_skipped
    early = before.sent if before else 0
    return image.model_copy(
        update={"timings": dict(branch.timings), "bytes_uploaded": uploaded + early, "bytes_skipped": skipped - early}
    )


def _layers(layout: Layout) -> list[Descriptor]:
    found: dict[str, Descriptor] = {}
    for node in layout.walk(layout.root()):
        if node.media_type.endswith("manifest.v1+json"):
            document = layout.read_document(node)
            if isinstance(document, ImageManifest):
                found |= {layer.digest: layer for layer in document.layers if not layer.may_be_foreign}
    return list(found.values())


def image_of(branch: Branch, conversion: Conversion) -> PlatformImage:
    """Return the record of the branch's platform; raise `SociPipelineError` if the conversion has none."""
    wanted = branch.request.platform
    for image in conversion.images:
        if image.platform.matches(wanted):
            return image
    found = ", ".join(str(image.platform) for image in conversion.images) or "none"
    raise SociPipelineError(f"the indexed image contains {found} instead of {wanted}")


def describe(image: PlatformImage) -> str:
    """Format one line for the log."""
    indexed = sum(1 for layer in image.layers if layer.ztoc)
    kind = "v1, a referrer" if image.soci_version is IndexVersion.V1 else "v2"
    reasons = Counter(layer.reason.value for layer in image.layers if layer.reason)
    rest = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items()))
    return (
        f"{image.platform} {image.manifest.digest}: {indexed} of {counted(len(image.layers), 'layer')} indexed ({kind})"
        + (f"; not indexed: {rest}" if rest else "")
    )
