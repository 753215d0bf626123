"""A publication with the library only, in a separate process that can be killed at any step or request."""

import multiprocessing
import os
import signal
import subprocess
import tempfile
import threading
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from soci_pipeline.git import source
from soci_pipeline.machine.workspace import workspace
from soci_pipeline.publish import branch
from soci_pipeline.publish.annotations import index_annotations
from soci_pipeline.publish.branch import Branch
from soci_pipeline.publish.collect import reader
from soci_pipeline.publish.join import join
from soci_pipeline.publish.leftovers import REMOVERS
from soci_pipeline.publish.provenance import Origin, attach
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.publish.tags import move_tags
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.settings import Settings
from soci_pipeline.soci.index.records import PlatformImage
from soci_pipeline.verification.verify import verify
from tests.support.faults import Fault, FaultPlan, Kind
from tests.support.registries import QUICK

TAGS = ("v1", "latest")
# Parts small enough that a test's layers are uploaded in several.
PATIENCE = replace(QUICK, settle_time=0, part_size=32 << 10)
_SECONDS = 60.0


@dataclass(frozen=True)
class Job:
    """What is published, and where its process may leave files. ``kill_at`` is a step, from 1; 0 means none."""

    registry: str
    repository: str
    application: Path
    prebuilt: Path
    folder: Path
    platforms: tuple[str, ...]
    kill_at: int = 0

    @property
    def work(self) -> Path:
        """The worker's folder."""
        return self.folder / "work"

    @property
    def temporary(self) -> Path:
        """The replacement of the system's temporary folder."""
        return self.folder / "tmp"

    @property
    def steps(self) -> list[str]:
        """The steps completed by all runs so far."""
        noted = self.folder / "steps"
        return noted.read_text().splitlines() if noted.exists() else []


class _Steps:
    """Records the end of each step, and kills the process there if requested."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._done = 0

    def done(self, name: str) -> None:
        self._done += 1
        with (self._job.folder / "steps").open("a") as noted:
            noted.write(f"{name}\n")
        if self._done == self._job.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def publish(job: Job) -> None:
    """Run the steps of the flows `publish_image` and `build_platform` without Prefect, as the work of a process."""
    job.temporary.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(job.temporary)
    steps = _Steps(job)
    settings = Settings.from_environment(
        {
            "SOCI_PIPELINE_WORK_FOLDER": str(job.work),
            "SOCI_PIPELINE_WORK_JOBS": "1",
            "SOCI_PIPELINE_REGISTRY_JOBS": "1",
        }
    )
    request = PublishRequest.check(
        {
            "image": f"{job.registry}/{job.repository}",
            "source": str(job.application),
            "platforms": list(job.platforms),
            "builder": "prebuilt",
            "prebuilt": f"{job.prebuilt}/{{platform}}",
            "soci": {"min_layer_size": 0, "span_size": 65536},
        }
    )
    with (
        workspace(settings.work.folder, "publication", REMOVERS) as folder,
        RegistryClient(job.registry, settings=PATIENCE) as client,
        # What a builder may leave behind: a process in a separate session, which no signal to its parent reaches.
        subprocess.Popen(["sleep", "600"], start_new_session=True) as helper,
    ):
        steps.done("start")
        try:
            _publish(request, folder, settings, client, steps)
        finally:
            helper.kill()


def _publish(request: PublishRequest, folder: Path, settings: Settings, client: RegistryClient, steps: _Steps) -> None:
    repository = request.image.repository
    commit = source.resolve(request.source)
    steps.done("resolve")
    images = []
    for platform in request.platforms:
        place = folder / platform.slug
        place.mkdir()
        images.append(_branch(Branch(request.branch(platform, commit), place, settings), client, steps))
    index = join(
        images, annotations=index_annotations(commit), read=reader(client, repository), platforms=request.platforms
    )
    client.manifests.put(repository, index.descriptor.digest, index.encode(), index.media_type)
    steps.done("join")
    report = verify(client, repository, index.descriptor.digest, platforms=request.platforms)
    assert report.ok, report.findings
    steps.done("verify")
    origin = Origin(source="app", ref=commit.ref, revision=commit.commit)
    attach(client, repository, index.descriptor, images, origin, name="app")
    steps.done("attest")
    move_tags(client, repository, index.descriptor, TAGS)
    steps.done("tag")


def _branch(work: Branch, client: RegistryClient, steps: _Steps) -> PlatformImage:
    platform = work.request.platform
    tree = branch.check_out(work)
    steps.done(f"source {platform}")
    built = branch.build(work, tree)
    steps.done(f"build {platform}")
    layout = branch.import_built(work, built)
    steps.done(f"import {platform}")
    before = branch.upload_layers(work, layout, client, threading.Event())
    steps.done(f"upload {platform}")
    conversion = branch.index(work, layout, client)
    steps.done(f"convert {platform}")
    image = branch.push(work, conversion, client, before=before)
    steps.done(f"push {platform}")
    return image


def processes() -> ForkServerContext:
    """Return a context that starts processes fast: they fork from one with the library imported and without threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def run(context: ForkServerContext, job: Job, plan: "KillPlan | None" = None) -> int:
    """Run a publication until it ends or ``plan`` kills it; return its exit status as in `subprocess`."""
    process = context.Process(target=publish, args=(job,), daemon=True)
    if plan is not None:
        plan.before(process)
    process.start()
    if plan is not None:
        plan.started()
    process.join(_SECONDS)
    assert process.exitcode is not None, "the publication neither ended nor died"
    return process.exitcode


class KillPlan(FaultPlan):
    """Kills the client's process at its ``nth`` request: once it was processed, or once half of its body is there."""

    def __init__(self) -> None:
        super().__init__()
        self._victim: ForkServerProcess | None = None
        self._ready = threading.Event()
        self._nth = 0
        self._after_bytes: int | None = None

    def arm(self, nth: int, *, after_bytes: int | None = None) -> None:
        """Start counting again; ``after_bytes`` cuts the request's body, None lets the registry process it."""
        self.replace(())
        self._nth, self._after_bytes = nth, after_bytes

    def before(self, victim: ForkServerProcess) -> None:
        """Set the process that is about to start."""
        self._ready.clear()
        self._victim = victim

    def started(self) -> None:
        """Note that the process has started and can be killed."""
        self._ready.set()

    def next_for(self, method: str, path: str) -> Fault | None:
        """Count a request, and kill the process at the selected one."""
        super().next_for(method, path)
        if len(self.requests) != self._nth:
            return None
        self._ready.wait()
        assert self._victim is not None
        self._victim.kill()
        if self._after_bytes is None:
            return Fault(method, path, kind=Kind.LOST_ANSWER)
        return Fault(method, path, kind=Kind.RESET, after_bytes=self._after_bytes)


def left_by(job: Job) -> list[Path]:
    """Return what a worker should not have when nothing runs: run folders, temporary files, incomplete zTOCs."""
    return [*job.temporary.iterdir(), *(job.work / "runs").iterdir(), *(job.work / "ztocs").glob(".incoming*")]


def helpers(job: Job) -> list[int]:
    """Return the processes that carry the folder of one of this job's runs in their environment."""
    mark = str(job.work).encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if any(word.startswith(b"SOCI_PIPELINE_RUN=" + mark) for word in environment.split(b"\0")):
                found.append(int(entry.name))
    return found
