"""Publications end to end: runs of the deployments, on workers that share no disk."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from local_stack.stack import PLATFORMS, Stack
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import parse_image_index, parse_image_manifest
from soci_pipeline.oci.media_types import OCI_INDEX, SOCI_INDEX_V1, SOCI_INDEX_V2
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.verification.verify import verify
from tests.support import publications as seen
from tests.support.built_sources import (
    BIG,
    PLAIN,
    SLOW,
    cancel_in_mid_build,
    in_mid_build,
    kill_in_mid_build,
    nothing_runs,
    repository_of,
    source_of,
    tags_of,
)
from tests.support.images import index_layout
from tests.support.published import tag
from tests.support.webhook import until

pytestmark = [
    pytest.mark.independent,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can isolate workers"),
]

I386 = Platform("linux", "386")
BROKEN = "FROM scratch\nCOPY rootfs/ /\nRUN echo what-went-wrong >&2; exit 37\n"
AUTOMATION = Path(__file__).parents[2] / "deployments" / "automations" / "crash-silent-runs.yaml"
# They share the module's first publication.
SAME_PROCESS = pytest.mark.xdist_group("one publication")
Source = Callable[..., dict[str, Any]]


@pytest.fixture
def source(stack: Stack, tmp_path: Path, request: pytest.FixtureRequest) -> Source:
    """Serves a source with one Dockerfile from the stack, and answers with the parameters that publish it."""
    return partial(source_of, stack, tmp_path, request.node.name)


@dataclass(frozen=True, slots=True)
class Published:
    """A publication of two platforms that one command started, and what it left."""

    parameters: dict[str, Any]
    run_id: str
    digest: Digest
    bytes_uploaded: int


@pytest.fixture(scope="module")
def published(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Published:
    parameters = source_of(stack, tmp_path_factory.mktemp("source"), "one-command", PLAIN)
    run_id = seen.completes(stack, seen.start_by_command(stack, parameters))
    with RegistryClient(stack.registry) as client:
        descriptor = client.manifests.head(repository_of(parameters), "latest")
    assert descriptor is not None
    uploaded = sum(image.bytes_uploaded for image in seen.records(stack, run_id))
    return Published(parameters, run_id, descriptor.digest, uploaded)


@SAME_PROCESS
def test_one_command_publishes_two_platforms_that_two_workers_built(stack: Stack, published: Published) -> None:
    parameters, run_id = published.parameters, published.run_id
    children = seen.branches(stack, run_id)
    pools = {seen.ask(stack, f"/flow_runs/{child}")["work_pool_name"]: child for child in children}
    assert set(pools) == {"soci-amd64", "soci-arm64"}
    for pool, child in pools.items():
        taken = f"submitting flow run '{child}'"
        takers = {name for name, worker in stack.workers.items() if taken in worker.log.read_text()}
        assert takers == {pool}

    repository = repository_of(parameters)
    with RegistryClient(stack.registry) as client:
        descriptor, data = client.manifests.get(repository, "latest")
        report = verify(client, repository, "latest", mode="all", platforms=PLATFORMS)
    assert report.ok, report.findings
    assert descriptor.media_type == OCI_INDEX
    listed = {entry.digest: entry for entry in parse_image_index(data).manifests}
    images = seen.records(stack, run_id)
    assert [image.platform for image in images] == list(PLATFORMS)
    for image in images:
        assert image.manifest.digest in listed
        assert image.soci_index is not None
        assert listed[image.soci_index.digest].artifact_type == SOCI_INDEX_V2
        assert any(layer.ztoc for layer in image.layers)
    _every_digest_is_recorded(stack, run_id, [descriptor.digest, *listed])


def _every_digest_is_recorded(stack: Stack, run_id: str, digests: list[Any]) -> None:
    wanted = {"flow_runs": {"id": {"any_": [run_id]}}}
    recorded = "\n".join(str(artifact["data"]) for artifact in seen.ask(stack, "/artifacts/filter", wanted))
    missing = [digest for digest in digests if str(digest) not in recorded]
    assert not missing, recorded


@SAME_PROCESS
def test_the_same_commit_published_twice_has_the_same_digest_and_uploads_no_blob(
    stack: Stack, published: Published
) -> None:
    run_id = seen.completed(stack, published.parameters)
    with RegistryClient(stack.registry) as client:
        again = client.manifests.head(repository_of(published.parameters), "latest")
    assert again is not None
    assert again.digest == published.digest
    # Both platforms have the same layers, and whichever comes first uploads them.
    assert published.bytes_uploaded > BIG
    assert [image.bytes_uploaded for image in seen.records(stack, run_id)] == [0, 0]


@pytest.mark.parametrize(
    ("change", "cause"),
    [({"dockerfile": "Missing.Dockerfile"}, "Missing.Dockerfile"), ({"ref": "no-such-branch"}, "no-such-branch")],
    ids=["dockerfile", "ref"],
)
def test_what_is_not_in_the_source_fails_the_run_before_any_branch_starts(
    stack: Stack, source: Source, change: dict[str, str], cause: str
) -> None:
    parameters = source(PLAIN, **change)
    run_id = seen.start(stack, parameters)
    state = seen.end_of(stack, run_id)
    assert state.kind == "FAILED"
    assert cause in state.message
    assert seen.branches(stack, run_id) == ()
    assert tags_of(stack, parameters) == ()


def test_a_step_that_fails_ends_the_publication_with_its_last_lines_and_the_tag_stays(
    stack: Stack, source: Source, tmp_path: Path
) -> None:
    parameters = source(BROKEN, platforms=["linux/amd64"])
    earlier = index_layout(tmp_path / "earlier")
    with RegistryClient(stack.registry) as client:
        tag(client, earlier, earlier.root(), "latest", repository=repository_of(parameters))
        state = seen.end_of(stack, seen.start(stack, parameters))
        stays = client.manifests.head(repository_of(parameters), "latest")
    assert state.kind == "FAILED"
    assert "linux/amd64: BuildFailed: " in state.message
    assert "what-went-wrong" in state.message
    assert "exit code: 37" in state.message
    assert stays is not None
    assert stays.digest == earlier.root().digest
    assert tags_of(stack, parameters) == ("latest",)


def test_cancelling_a_publication_ends_its_branches_and_what_they_build(stack: Stack, source: Source) -> None:
    cancel_in_mid_build(stack, source(SLOW, platforms=["linux/amd64"], build_args={"PAUSE": "611"}), 611)


def test_a_publication_that_is_killed_takes_its_branches_along(stack: Stack, source: Source) -> None:
    kill_in_mid_build(stack, source(SLOW, platforms=["linux/amd64"], build_args={"PAUSE": "612"}), 612)


def test_containerd_and_soci_publish_a_version_1_index_as_a_referrer(stack: Stack, source: Source) -> None:
    parameters = source(PLAIN, platforms=["linux/amd64"], toolchain="containerd", soci={"version": "v1"})
    run_id = seen.completed(stack, parameters)
    (image,) = seen.records(stack, run_id)
    repository = repository_of(parameters)
    with RegistryClient(stack.registry) as client:
        referrers = client.referrers.list(repository, image.manifest.digest, SOCI_INDEX_V1)
        assert [each.digest for each in referrers] == [image.soci_index.digest if image.soci_index else None]
        _, data = client.manifests.get(repository, referrers[0].digest)
        report = verify(client, repository, "latest", mode="all", platforms=PLATFORMS[:1])
    assert report.ok, report.findings
    ztocs = [str(layer.digest) for layer in parse_image_manifest(data).layers]
    assert ztocs == [str(layer.ztoc) for layer in image.layers if layer.ztoc]
    assert ztocs


def _silence_s() -> float:
    """After how many seconds without a heartbeat a run is crashed."""
    return float(yaml.safe_load(AUTOMATION.read_text())["trigger"]["within"])


@pytest.mark.first
def test_a_machine_that_dies_in_mid_build_fails_the_run_and_publishing_again_succeeds(
    stack: Stack, source: Source, tmp_path: Path
) -> None:
    parameters = source(SLOW, platforms=[str(I386)], build_args={"PAUSE": "613"})
    with seen.worker_of_its_own(stack, tmp_path / "worker", I386) as machine:
        run_id, branch = in_mid_build(stack, parameters, 613)
        until(lambda: bool(seen.heartbeats(stack, branch)), seconds=90)
        environment = seen.environment_of(machine)
        seen.kill_machine(machine)
        state = seen.end_of(stack, run_id)
        assert state.kind == "FAILED"
        assert str(I386) in state.message
        assert "no heartbeat" in state.message
        ended = datetime.fromisoformat(seen.ask(stack, f"/flow_runs/{run_id}")["end_time"])
        assert (ended - seen.heartbeats(stack, branch)[0]).total_seconds() < _silence_s() + 60
        nothing_runs(branch, 613)
        assert tags_of(stack, parameters) == ()

        with seen.started_again(machine, environment):
            seen.completed(stack, parameters | {"build_args": {"PAUSE": "0"}})
            assert tags_of(stack, parameters) == ("latest",)
            # What the killed run had on the disk is gone.
            assert not list((machine.home / "work").glob(f"*{branch}*"))
