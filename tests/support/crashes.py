"""Kill a library publication at a step, at a request or during an upload, and run it again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TypeVar

from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.server import serving
from soci_pipeline.verification.verify import verify
from tests.support.git_repositories import repository
from tests.support.images import AMD64, ARM64, gzip_layer, image_layout
from tests.support.library_publication import PATIENCE, TAGS, Job, KillPlan, helpers, left_by, processes, run
from tests.support.registries import push_image
from tests.support.tars import text

_Place = TypeVar("_Place")
KILLED = -9
BOTH = (str(AMD64), str(ARM64))


@dataclass
class Shop:
    """A registry that kills its clients, and jobs with separate repositories and worker folders."""

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
        """Run the first publication, which determines the digest and the boundaries."""
        job = self.job("undisturbed")
        assert run(self.context, job) == 0
        found = self.client.manifests.head(job.repository, TAGS[0])
        assert found is not None
        self.expected = found.digest
        return job

    def killed_and_run_again(
        self, name: str, *, step: int = 0, request: int = 0, after_bytes: int | None = None
    ) -> None:
        """Kill a publication at a step or a request, check what it left, and publish again on the same worker."""
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
        found = self.client.manifests.head(job.repository, tag)
        if found is None:
            assert others, f"{job.repository} has no {tag}"
        elif found.digest not in others:
            assert found.digest == self.expected
            assert verify(self.client, job.repository, tag, mode="all").ok


@contextmanager
def crash_shop(folder: Path) -> Iterator[Shop]:
    """Yield a shop with a source and prebuilt images for both platforms."""
    repository(folder / "app")
    for each in (AMD64, ARM64):
        files = {"usr/bin/app": f"{each}\n".encode() + text(120_000)}
        image_layout(folder / "prebuilt" / each.slug, each, [gzip_layer(files)])
    plan = KillPlan()
    with (
        serving(folder / "registry", middleware=plan.middleware) as address,
        RegistryClient(address, settings=PATIENCE) as client,
    ):
        yield Shop(client, plan, processes(), folder)


def kill_after_steps(shop: Shop, *, sample: int | None = None) -> None:
    """Kill a publication after each step and run it again; with ``sample``, only at about that many steps."""
    steps = shop.undisturbed().steps
    assert {"convert linux/amd64", "push linux/arm64", "join", "verify", "tag"} <= set(steps)
    for number, name in _sample(list(enumerate(steps, 1)), sample):
        shop.killed_and_run_again(f"step-{number}", step=number)
        assert (shop.folder / f"step-{number}" / "steps").read_text().splitlines()[number - 1] == name


def kill_at_requests(shop: Shop, *, after_bytes: int | None, sample: int | None = None) -> None:
    """Do the same at each request that writes: after it was processed, or after some bytes of its body."""
    shop.platforms = (str(AMD64),)
    shop.plan.arm(0)
    shop.undisturbed()
    asked = list(enumerate(shop.plan.requests, 1))
    # Requests that only read do not change the registry.
    bodies = {"PATCH", "PUT"}
    chosen = bodies if after_bytes else bodies | {"POST"}
    numbers = [number for number, (method, _) in asked if method in chosen]
    assert {method for _, (method, _) in asked} >= chosen
    for number in _sample(numbers, sample):
        shop.killed_and_run_again(f"request-{number}", request=number, after_bytes=after_bytes)


def _sample(places: Sequence[_Place], count: int | None) -> list[_Place]:
    """Return the first, the last, and others at equal distances; all of them without a count."""
    if count is None or count >= len(places):
        return list(places)
    return [places[round(number * (len(places) - 1) / (count - 1))] for number in range(count)]
