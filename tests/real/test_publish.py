"""Publications end to end: the flows as `prefect deployment run` starts them, on workers that share no disk."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.local.engine import Engine
from soci_pipeline.local.stack import PLATFORMS, Stack, local_stack
from soci_pipeline.local.toolchain import Toolchain
from soci_pipeline.oci.manifest import parse_image_index, parse_image_manifest
from soci_pipeline.oci.media_types import OCI_INDEX, SOCI_INDEX_V1, SOCI_INDEX_V2
from soci_pipeline.prefect_api import PrefectApi
from soci_pipeline.process import run
from soci_pipeline.publish.verification.verify import verify
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import RepositoryUnknown
from tests.support import publications as seen
from tests.support.images import index_layout
from tests.support.published import tag
from tests.support.shell_root import add_shell
from tests.support.tars import noise
from tests.support.webhook import until

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can isolate workers"),
]

BIG = 11 << 20
PLAIN = "FROM scratch\nCOPY data.bin /data.bin\nCOPY note.txt /note.txt\n"
SLOW = "FROM scratch\nCOPY rootfs/ /\nARG PAUSE=0\nRUN sleep $PAUSE\n"
BROKEN = "FROM scratch\nCOPY rootfs/ /\nRUN echo what-went-wrong >&2; exit 37\n"
Source = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def shop(
    engine: Engine,
    toolchain: Toolchain,
    or_skip: Callable[[], AbstractContextManager[None]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """A stack of these tests' own, since they kill what runs in it; its workers have ctr and soci too."""
    with ExitStack() as block:
        with or_skip():
            tools = replace(engine, env=dict(engine.env) | {"PATH": toolchain.ensure(["containerd", "soci"])["PATH"]})
            extra = {} if engine.containerd_socket is None else {"CONTAINERD_ADDRESS": str(engine.containerd_socket)}
            folder = tmp_path_factory.mktemp("shop")
            started = block.enter_context(
                local_stack(folder, engine=tools, toolchain=toolchain, isolated=True, worker_python=False, extra=extra)
            )
        yield started


@pytest.fixture(params=["two processes a run", "one process a run"])
def either(request: pytest.FixtureRequest) -> Stack:
    """The stack whose pools leave the command to Prefect, and the one whose pools know the workers' Python."""
    found: Stack = request.getfixturevalue("shop" if request.param.startswith("two") else "stack")
    return found


@pytest.fixture
def source(shop: Stack, tmp_path: Path, request: pytest.FixtureRequest) -> Source:
    """Commits a work tree with one Dockerfile, serves it, and answers with the parameters that publish it."""

    def make(text: str, /, to: Stack = shop, **parameters: Any) -> dict[str, Any]:
        name = "".join(part for part in request.node.name.title() if part.isalnum())[:60].lower()
        tree = tmp_path / "tree"
        tree.mkdir()
        (tree / "Dockerfile").write_text(text)
        (tree / "data.bin").write_bytes(noise(BIG))
        (tree / "note.txt").write_text(name)
        add_shell(tree)
        who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
        for arguments in (["init", "-q"], ["add", "--all"], [*who, "commit", "-q", "-m", "The first"]):
            run(["git", *arguments], cwd=tree)
        served = to.git.serve(tree, name)
        defaults = {"image": f"{to.registry}/publish/{name}", "source": served.url, "builder": "buildx"}
        return defaults | {"tags": ["latest"]} | parameters

    return make


def repository_of(parameters: dict[str, Any]) -> str:
    return str(parameters["image"]).partition("/")[2]


def tags_of(stack: Stack, parameters: dict[str, Any]) -> tuple[str, ...]:
    with RegistryClient(stack.registry) as client:
        try:
            return client.list_tags(repository_of(parameters))
        except RepositoryUnknown:
            return ()


def test_one_command_publishes_two_platforms_that_two_workers_built(shop: Stack, source: Source) -> None:
    parameters = source(PLAIN)
    run_id = seen.completed(shop, parameters)
    children = seen.branches(shop, run_id)
    pools = {seen.ask(shop, f"/flow_runs/{child}")["work_pool_name"]: child for child in children}
    assert set(pools) == {"soci-amd64", "soci-arm64"}
    for pool, child in pools.items():
        taken = f"submitting flow run '{child}'"
        takers = {name for name, worker in shop.workers.items() if taken in worker.log.read_text()}
        assert takers == {pool}

    repository = repository_of(parameters)
    with RegistryClient(shop.registry) as client:
        descriptor, data = client.get_manifest(repository, "latest")
        report = verify(client, repository, "latest", mode="all", platforms=PLATFORMS)
    assert report.ok, report.findings
    assert descriptor.media_type == OCI_INDEX
    listed = {entry.digest: entry for entry in parse_image_index(data).manifests}
    images = seen.records(shop, run_id)
    assert [image.platform for image in images] == list(PLATFORMS)
    for image in images:
        assert image.manifest.digest in listed
        assert image.soci_index is not None
        assert listed[image.soci_index.digest].artifact_type == SOCI_INDEX_V2
        assert any(layer.ztoc for layer in image.layers)
    _every_digest_is_recorded(shop, run_id, [descriptor.digest, *listed])


def _every_digest_is_recorded(stack: Stack, run_id: str, digests: list[Any]) -> None:
    wanted = {"flow_runs": {"id": {"any_": [run_id]}}}
    recorded = "\n".join(str(artifact["data"]) for artifact in seen.ask(stack, "/artifacts/filter", wanted))
    missing = [digest for digest in digests if str(digest) not in recorded]
    assert not missing, recorded


def test_the_same_commit_published_twice_has_the_same_digest_and_uploads_no_blob(shop: Stack, source: Source) -> None:
    parameters = source(PLAIN)
    digests, uploaded = [], []
    for _ in range(2):
        run_id = seen.completed(shop, parameters)
        with RegistryClient(shop.registry) as client:
            descriptor = client.head_manifest(repository_of(parameters), "latest")
        assert descriptor is not None
        digests.append(descriptor.digest)
        uploaded.append([image.bytes_uploaded for image in seen.records(shop, run_id)])
    assert digests[0] == digests[1]
    # Both platforms have the same layers, and whichever comes first uploads them.
    assert sum(uploaded[0]) > BIG
    assert uploaded[1] == [0, 0]


@pytest.mark.parametrize(
    ("change", "cause"),
    [({"dockerfile": "Missing.Dockerfile"}, "Missing.Dockerfile"), ({"ref": "no-such-branch"}, "no-such-branch")],
    ids=["dockerfile", "ref"],
)
def test_what_is_not_in_the_source_fails_the_run_before_any_branch_starts(
    shop: Stack, source: Source, change: dict[str, str], cause: str
) -> None:
    parameters = source(PLAIN, **change)
    run_id = seen.start(shop, parameters)
    state = seen.end_of(shop, run_id)
    assert state.kind == "FAILED"
    assert cause in state.message
    assert seen.branches(shop, run_id) == ()
    assert tags_of(shop, parameters) == ()


def test_a_step_that_fails_ends_the_publication_with_its_last_lines_and_the_tag_stays(
    shop: Stack, source: Source, tmp_path: Path
) -> None:
    parameters = source(BROKEN, platforms=["linux/amd64"])
    earlier = index_layout(tmp_path / "earlier")
    with RegistryClient(shop.registry) as client:
        tag(client, earlier, earlier.root(), "latest", repository=repository_of(parameters))
        state = seen.end_of(shop, seen.start(shop, parameters))
        stays = client.head_manifest(repository_of(parameters), "latest")
    assert state.kind == "FAILED"
    assert "linux/amd64: BuildFailed: " in state.message
    assert "what-went-wrong" in state.message
    assert "exit code: 37" in state.message
    assert stays is not None
    assert stays.digest == earlier.root().digest
    assert tags_of(shop, parameters) == ("latest",)


def test_cancelling_a_publication_ends_its_branches_and_what_they_build(either: Stack, source: Source) -> None:
    parameters = source(SLOW, to=either, platforms=["linux/amd64"], build_args={"PAUSE": "611"})
    run_id, branch = _in_mid_build(either, parameters, 611)
    with PrefectApi(either.prefect_api_url) as api:
        api.cancel(run_id)
    assert seen.end_of(either, run_id, seconds=120).kind == "CANCELLED"
    assert seen.end_of(either, branch, seconds=120).kind == "CANCELLED"
    _nothing_runs(branch, 611)
    assert tags_of(either, parameters) == ()


def test_a_publication_that_is_killed_takes_its_branches_along(either: Stack, source: Source) -> None:
    parameters = source(SLOW, to=either, platforms=["linux/amd64"], build_args={"PAUSE": "612"})
    run_id, branch = _in_mid_build(either, parameters, 612)
    seen.kill(seen.processes_of_run(run_id))
    assert seen.end_of(either, run_id, seconds=120).kind == "CRASHED"
    assert seen.end_of(either, branch, seconds=120).kind == "CANCELLED"
    _nothing_runs(branch, 612)
    assert tags_of(either, parameters) == ()


def test_containerd_and_soci_publish_a_version_1_index_as_a_referrer(shop: Stack, source: Source) -> None:
    parameters = source(PLAIN, platforms=["linux/amd64"], toolchain="containerd", soci={"version": "v1"})
    run_id = seen.completed(shop, parameters)
    (image,) = seen.records(shop, run_id)
    repository = repository_of(parameters)
    with RegistryClient(shop.registry) as client:
        referrers = client.referrers(repository, image.manifest.digest, SOCI_INDEX_V1)
        assert [each.digest for each in referrers] == [image.soci_index.digest if image.soci_index else None]
        _, data = client.get_manifest(repository, referrers[0].digest)
        report = verify(client, repository, "latest", mode="all", platforms=PLATFORMS[:1])
    assert report.ok, report.findings
    ztocs = [str(layer.digest) for layer in parse_image_manifest(data).layers]
    assert ztocs == [str(layer.ztoc) for layer in image.layers if layer.ztoc]
    assert ztocs


def test_a_machine_that_dies_in_mid_build_fails_the_run_and_publishing_again_succeeds(
    shop: Stack, source: Source
) -> None:
    parameters = source(SLOW, platforms=["linux/amd64"], build_args={"PAUSE": "613"})
    run_id, branch = _in_mid_build(shop, parameters, 613)
    until(lambda: bool(seen.heartbeats(shop, branch)), seconds=90)
    machine = shop.workers["soci-amd64"]
    environment = seen.environment_of(machine)
    seen.kill_machine(machine)
    state = seen.end_of(shop, run_id)
    assert state.kind == "FAILED"
    assert "linux/amd64" in state.message
    assert "no heartbeat" in state.message
    ended = datetime.fromisoformat(seen.ask(shop, f"/flow_runs/{run_id}")["end_time"])
    assert (ended - seen.heartbeats(shop, branch)[0]).total_seconds() < 150
    _nothing_runs(branch, 613)
    assert tags_of(shop, parameters) == ()

    with seen.started_again(machine, environment):
        seen.completed(shop, parameters | {"build_args": {"PAUSE": "0"}})
        assert tags_of(shop, parameters) == ("latest",)
        # What the killed run had on the disk is gone.
        assert not list((machine.home / "work").glob(f"*{branch}*"))


def _in_mid_build(stack: Stack, parameters: dict[str, Any], pause: int) -> tuple[str, str]:
    """A publication and its only branch, whose build step sleeps."""
    run_id = seen.start(stack, parameters)
    until(lambda: bool(seen.sleeping(pause)), seconds=180)
    (branch,) = seen.branches(stack, run_id)
    return run_id, branch


def _nothing_runs(branch: str, pause: int) -> None:
    until(lambda: not seen.sleeping(pause) and not seen.processes_of_run(branch), seconds=30)
