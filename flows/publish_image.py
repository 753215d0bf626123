"""Publish one image: a branch for each platform on its own workers, then join, verify, and only then tag."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.runtime import flow_run

from soci_pipeline.machine.workspace import workspace
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.leftovers import REMOVERS
from soci_pipeline.publish.records import PublicationResult, PublishedImage
from soci_pipeline.publish.release import identity
from soci_pipeline.publish.request import BranchRequest, PublishRequest
from soci_pipeline.publish.source import Source
from soci_pipeline.publish.steps import published_image
from soci_pipeline.settings import Settings
from soci_pipeline.verification.mode import VerifyMode
from soci_pipeline.verification.verify import VerificationReport
from tasks.artifacts import show_publication
from tasks.assets import record_asset
from tasks.aws import connected
from tasks.branches import Started, cancel_children, deployment_of, start, wait
from tasks.failures import explained
from tasks.form import form
from tasks.join import join
from tasks.provenance import attest
from tasks.records import read_record, write_result
from tasks.run_log import run_log
from tasks.run_names import publication_name
from tasks.same_images import find_same
from tasks.source import resolve_source
from tasks.summary import Shown
from tasks.supersede import cancel_older
from tasks.tags import tag
from tasks.target import check_target
from tasks.verify import verify as verify_index
from tasks.workers import Watch, pools_of, wait_for_workers

# The version of the flows that this process runs; its branches must have the same.
FLOWS_VERSION = identity(Path(__file__).resolve().parents[1])


def _cancel_branches(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - a hook
    cancel_children(flow_run.id, f"the publication that started it is {state.type.value.lower()}")


@flow(
    name="publish-image",
    flow_run_name=publication_name,
    on_cancellation=[_cancel_branches],
    on_crashed=[_cancel_branches],
    on_failure=[_cancel_branches],
)
@explained
@form(PublishRequest, first=("image", "source", "ref", "tags", "platforms"))
def publish_image(request: PublishRequest) -> PublishedImage:
    """Build an image on each platform's own workers, index it for lazy loading, and publish all under one tag."""
    begun = time.monotonic()
    settings = Settings.from_environment()
    name = f"publish-{flow_run.get_id()}"
    with run_log(), workspace(settings.work.folder, name, REMOVERS), connected(request.image, settings) as client:
        pools = pools_of({platform: deployment_of(platform) for platform in request.platforms})
        timeout = settings.publish.worker_wait if request.worker_wait is None else request.worker_wait
        commit = resolve_source(request.source, request.ref, request.required_files, request.source_credentials)
        source = Source(commit, request.source_credentials)
        names = request.tag_names(source.commit, datetime.now(UTC).date())
        target = check_target(request.image, names, source, client, settings, force=request.force_tags)
        if settings.publish.supersede:
            cancel_older(target.image, UUID(flow_run.get_id()))
        wait_for_workers(pools, timeout)
        begin = partial(_begin, {each: request.branch(each, source.commit) for each in request.platforms})
        started = tuple(begin(platform) for platform in request.platforms)
        deadline = begun + settings.publish.deadline
        completed = wait(started, settings.publish, Watch(pools, timeout), again=begin, deadline=deadline)
        images = tuple(read_record(branch.run_id, branch.platform) for branch in completed)
        index = join(target, source, images, request.platforms)
        if request.unless_same_as and (same := find_same(target, request.unless_same_as, index, images)):
            write_result(_result(same, None, source, begun))
            return same
        report = None
        if request.verify is not VerifyMode.OFF:
            report = verify_index(client, target.image, index.digest, request.verify, request.platforms)
        attest(target, source, index, images, settings, parameters=request.statement_parameters())
        moved = tag(target, index, images)
        published = published_image(target, index, images, moved, verified=report is not None)
        shown = Shown(target.image, published, report, source.commit, seconds=time.monotonic() - begun)
        show_publication(shown)
        write_result(_result(published, report, source, begun))
        record_asset(shown)
        return published


def _result(
    published: PublishedImage, report: VerificationReport | None, source: Source, begun: float
) -> PublicationResult:
    """What the command that waits for this run shows."""
    return PublicationResult.of(published, report, commit=source.commit.commit, seconds=time.monotonic() - begun)


def _begin(branches: Mapping[Platform, BranchRequest], platform: Platform) -> Started:
    """The branch of a platform, started by this run."""
    return start(branches[platform], parent=str(flow_run.get_id()), flows_version=FLOWS_VERSION)
