"""A publication by the library is killed at every step, at every request and in mid-upload, and then run again."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from soci_pipeline.oci.digest import Digest
from soci_pipeline.publish.verification.verify import verify
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.server import serving
from tests.support.git_repositories import repository
from tests.support.images import AMD64, ARM64, gzip_layer, image_layout
from tests.support.library_publication import PATIENCE, TAGS, Job, KillPlan, helpers, left_by, processes, run
from tests.support.registries import push_image
from tests.support.tars import text

# Some dozens of whole publications, each in a process of its own.
pytestmark = pytest.mark.timeout(1800)

KILLED = -9
BOTH = (str(AMD64), str(ARM64))


@dataclass
class Shop:
    """A registry that kills its clients, and jobs with a repository and a worker's folder of their own."""

    client: RegistryClient
    plan: KillPlan
    context: ForkServerContext
    folder: Path
    platforms: tuple[str, ...] = BOTH
    expected: Digest | None = None

    def job(self, name: str) -> Job:
        folder = self.folder / name
        folder.mkdir()
        return Job(
            registry=self.client.registry,
            repository=f"crash/{name}",
            application=self.folder / "app",
            prebuilt=self.folder / "prebuilt",
            folder=folder,
            platforms=self.platforms,
        )

    def undisturbed(self) -> Job:
        """The first publication, which says what the digest is and which boundaries there are."""
        job = self.job("undisturbed")
        assert run(self.context, job) == 0
        found = self.client.head_manifest(job.repository, TAGS[0])
        assert found is not None
        self.expected = found.digest
        return job

    def killed_and_run_again(
        self, name: str, *, step: int = 0, request: int = 0, after_bytes: int | None = None
    ) -> None:
        """Kill a publication at a step or a request, look at what is there, and publish again on the same worker."""
        job = self.job(name)
        old, _ = push_image(self.client, TAGS[-1], to=job.repository)
        self.plan.arm(request, after_bytes=after_bytes)
        assert run(self.context, replace(job, kill_at=step), self.plan) == KILLED, name
        self.plan.arm(0)
        assert helpers(job), "a killed run leaves a process, or the test shows nothing"
        for tag in TAGS:
            self._is_sound(job, tag, old.digest)
        assert run(self.context, job) == 0, name
        for tag in TAGS:
            self._is_sound(job, tag)
        assert left_by(job) == []
        assert helpers(job) == []

    def _is_sound(self, job: Job, tag: str, *others: Digest) -> None:
        found = self.client.head_manifest(job.repository, tag)
        if found is None:
            assert others, f"{job.repository} has no {tag}"
        elif found.digest not in others:
            assert found.digest == self.expected
            assert verify(self.client, job.repository, tag, mode="all").ok


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    repository(tmp_path / "app")
    for each in (AMD64, ARM64):
        files = {"usr/bin/app": f"{each}\n".encode() + text(120_000)}
        image_layout(tmp_path / "prebuilt" / each.slug, each, [gzip_layer(files)])
    plan = KillPlan()
    with (
        serving(tmp_path / "registry", faults=plan) as address,
        RegistryClient(address, settings=PATIENCE) as client,
    ):
        yield Shop(client, plan, processes(), tmp_path)


def test_a_kill_after_any_step_leaves_nothing_that_the_next_run_does_not_mend(shop: Shop) -> None:
    steps = shop.undisturbed().steps
    assert {"convert linux/amd64", "push linux/arm64", "join", "verify", "tag"} <= set(steps)
    for number, name in enumerate(steps, 1):
        shop.killed_and_run_again(f"step-{number}", step=number)
        assert (shop.folder / f"step-{number}" / "steps").read_text().splitlines()[number - 1] == name


@pytest.mark.parametrize("after_bytes", [None, 100], ids=["carried out", "in mid-upload"])
def test_a_kill_at_any_request_that_writes_leaves_nothing_that_the_next_run_does_not_mend(
    shop: Shop, after_bytes: int | None
) -> None:
    shop.platforms = (str(AMD64),)
    shop.plan.arm(0)
    shop.undisturbed()
    asked = list(enumerate(shop.plan.requests, 1))
    # What only reads leaves the registry as it was.
    bodies = {"PATCH", "PUT"}
    chosen = bodies if after_bytes else bodies | {"POST"}
    numbers = [number for number, (method, _) in asked if method in chosen]
    assert {method for _, (method, _) in asked} >= chosen
    for number in numbers:
        shop.killed_and_run_again(f"request-{number}", request=number, after_bytes=after_bytes)
