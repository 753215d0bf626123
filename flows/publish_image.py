"""Publish one image: a branch for each platform on its own workers, then join, verify, and only then tag."""

import time
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.runtime import flow_run

from soci_pipeline.publish.records import PublishedImage
from soci_pipeline.publish.release import identity
from soci_pipeline.publish.request import PublishRequest, VerifyMode
from soci_pipeline.publish.source import ResolvedSource
from soci_pipeline.settings import Settings
from soci_pipeline.soci.records import PlatformImage, SociOptions
from tasks.artifacts import show_publication
from tasks.aws import connected
from tasks.branches import cancel_children, deployment_of, start, wait
from tasks.join import join
from tasks.provenance import attest
from tasks.records import read_record
from tasks.run_log import run_log
from tasks.source import resolve_source
from tasks.supersede import cancel_older
from tasks.tags import tag
from tasks.target import check_target
from tasks.verify import verify as verify_index
from tasks.workers import Watch, pools_of, wait_for_workers

# The version of the flows that this process runs; its branches must have the same.
RELEASE = identity(Path(__file__).resolve().parents[1])


def _cancel_branches(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - a hook
    cancel_children(flow_run.id, f"the publication that asked for it is {state.type.value.lower()}")


@flow(
    name="publish-image",
    flow_run_name="{image} from {source}",
    on_cancellation=[_cancel_branches],
    on_crashed=[_cancel_branches],
    on_failure=[_cancel_branches],
)
def publish_image(
    image: str,
    source: str,
    ref: str | None = None,
    tags: list[str] = ["{short_sha}"],  # noqa: B006 - Prefect shows it in the form, and nothing changes it
    platforms: list[str] = ["linux/amd64", "linux/arm64"],  # noqa: B006 - as above
    context: str = ".",
    dockerfile: str = "Dockerfile",
    target: str | None = None,
    build_args: dict[str, str] = {},  # noqa: B006 - as above
    build_secrets: dict[str, str] = {},  # noqa: B006 - as above
    source_credentials: str | None = None,
    builder: Literal["auto", "buildx", "docker", "prebuilt"] = "auto",
    prebuilt: str | None = None,
    toolchain: Literal["native", "containerd"] = "native",
    soci: SociOptions = SociOptions(),  # noqa: B008 - it is frozen
    attestations: bool = False,
    verify: Literal["sample", "all", "off"] = "sample",
    platform_tags: bool = False,
    force_tags: bool = False,
    worker_wait: float | None = None,
) -> PublishedImage:
    """Build an image on each platform's own workers, index it for lazy loading, and publish all under one tag.

    Args:
        image: Where to, as registry/repository without a tag.
        source: The git address of what is built.
        ref: Branch, tag or commit; the default branch where nothing is said. It is resolved once, for all platforms.
        tags: Templates with {sha} {short_sha} {ref} {date} {version}.
        platforms: One branch each, on the workers of that platform.
        context: The build context, a folder of the source.
        dockerfile: The Dockerfile, as a path in the context.
        target: The stage to build; the last one where nothing is said.
        build_args: Build arguments. They stay in the image's history, so they must hold no secrets.
        build_secrets: Build secrets, from their id to a Prefect block (secret/npm-token) or the ARN of a secret.
        source_credentials: For a private source: a Prefect block (secret/git-token) or the ARN of a secret.
        builder: What makes the image; auto takes buildx where the worker has it, else its engine.
        prebuilt: For the builder prebuilt: path or address of an archive or layout, with {platform}.
        toolchain: What indexes it: this project, or containerd and the soci command.
        soci: The version of the index and the sizes; reuse_from names a tag whose zTOCs are used again.
        attestations: Also publish BuildKit's provenance and SBOM.
        verify: How much of what was pushed is read again before a tag moves.
        platform_tags: Also tag each platform's own image, as TAG-amd64, for consumers that take no index.
        force_tags: Let an older commit replace a newer one under a mutable tag.
        worker_wait: How many seconds to wait for a worker of each platform; what the machine says by default.

    """
    # Nothing else is local yet: these are the parameters, and the model has the same (a test says so).
    request = PublishRequest.check(locals())
    begun = time.monotonic()
    settings = Settings.from_environment()
    with run_log(), connected(request.image, settings) as client:
        wanted = {platform: deployment_of(platform) for platform in request.platforms}
        pools = pools_of(wanted)
        patience = settings.publish.worker_wait if request.worker_wait is None else request.worker_wait
        commit = resolve_source(request)
        names, rule = check_target(request, commit, client, settings)
        if settings.publish.supersede:
            cancel_older(request, UUID(flow_run.get_id()))
        wait_for_workers(pools, patience)
        images = _branches(
            request, commit, settings, Watch(pools, patience), deadline=begun + settings.publish.deadline
        )
        index = join(request, commit, images, client)
        report = None
        if request.verify is not VerifyMode.OFF:
            report = verify_index(client, request.image.repository, index.digest, request.verify, request.platforms)
        attest(request, commit, index, images, client, settings)
        moved = tag(request, index, images, names, rule, client)
        published = PublishedImage(
            reference=str(request.image.with_digest(index.digest)),
            index=index.digest,
            platforms=images,
            tags=tuple(record.tag for record in moved),
            verified=report is not None,
        )
        show_publication(request.image, published, report, seconds=time.monotonic() - begun)
        return published


def _branches(
    request: PublishRequest, commit: ResolvedSource, settings: Settings, watch: Watch, *, deadline: float
) -> tuple[PlatformImage, ...]:
    """What each branch has published, in the order of the request."""
    parent = str(flow_run.get_id())
    branches = [request.branch(platform, commit) for platform in request.platforms]
    started = [start(branch, parent=parent, release=RELEASE) for branch in branches]
    wait(started, settings.publish, watch, deadline=deadline)
    return tuple(read_record(branch.run_id, branch.platform) for branch in started)
