"""Push under random faults: each push succeeds, or ends with a known error and an unmoved tag."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from soci_pipeline.errors import SociPipelineError
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.media_types import OCI_CONFIG
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.pull import pull_graph
from soci_pipeline.registry.push import push_graph
from soci_pipeline.registry.server import ServerSettings, serving
from soci_pipeline.registry.settings import ClientSettings
from tests.support.faults import Fault, FaultPlan, Kind
from tests.support.images import index_layout
from tests.support.registries import CREDENTIALS, LOGIN, QUICK, leftovers, noise, push_image

LARGE = noise(900_000, seed=4)
BLOB = r"/blobs/sha256:"
SESSION = r"/blobs/uploads/."


@dataclass(frozen=True)
class Place:
    """A running registry whose faults can be replaced, and a separate repository for one test."""

    address: str
    plan: FaultPlan
    folder: Path
    repository: str

    @contextmanager
    def client(self, settings: ClientSettings = QUICK) -> Iterator[RegistryClient]:
        with RegistryClient(self.address, settings=settings, credentials=CREDENTIALS) as client:
            # Authenticate first, so that a fault affects the operation and not its login.
            client.ping()
            yield client

    def expect(self, fault: Fault, method: str, path: str) -> None:
        """Apply the fault to requests of this method with a matching path."""
        self.plan.replace([replace(fault, method=method, path=path)])

    def leftovers(self) -> list[Path]:
        return leftovers(self.folder, self.repository)


@contextmanager
def faulty_registry(folder: Path) -> Iterator[Place]:
    """Yield a registry with a login, whose faults are set through the yielded place."""
    plan = FaultPlan()
    with serving(folder, middleware=plan.middleware, settings=ServerSettings(login=LOGIN)) as address:
        yield Place(address, plan, folder, "")


def run_random_plans(running: Place, folder: Path, count: int) -> dict[str, int]:
    """Push once under each of ``count`` plans; return how many succeeded (``whole``) and failed (``named``)."""
    layout = index_layout(folder / "layout")
    extra = layout.add_bytes(LARGE, OCI_CONFIG)
    pulled = Layout.create(folder / "pulled")
    outcomes = {"whole": 0, "named": 0}
    with running.client() as checker:
        for seed in range(count):
            repository = f"run/{seed}"
            running.plan.replace([])
            before, _ = push_image(checker, "v1", to=repository)
            running.plan.replace(random_plan(random.Random(seed)))
            failed = push_with_faults(running, layout, extra, repository)
            running.plan.replace([])
            tagged = checker.manifests.head(repository, "v1")
            outcomes["whole" if failed is None else "named"] += 1
            assert tagged is not None, seed
            if failed is None or tagged.digest != before.digest:
                # If only the last response was lost, the tag has moved; then everything must be there.
                assert pull_graph(checker, repository, "v1", pulled).digest == layout.root().digest, seed
    return outcomes


def random_plan(chance: random.Random) -> list[Fault]:
    """Return one to six random faults at random requests."""
    sorts = [
        ("HEAD", BLOB),
        ("POST", "/uploads/"),
        ("PATCH", SESSION),
        ("PUT", SESSION),
        ("GET", SESSION),
        ("PUT", "/manifests/"),
        ("HEAD", "/manifests/"),
        ("DELETE", SESSION),
        ("*", ""),
    ]
    faults = []
    for _ in range(chance.randint(1, 6)):
        method, path = chance.choice(sorts)
        status = chance.choice([400, 401, 403, 404, 408, 416, 429, 500, 502, 503, 504])
        faults.append(
            Fault(
                method,
                path,
                nth=chance.randint(1, 6),
                kind=chance.choice(list(Kind)),
                times=chance.choice([1, 1, 1, 2, 50]),
                status=status,
                code=chance.choice(["", "UNKNOWN", "DENIED", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID"]),
                retry_after=chance.choice([None, None, "0", "1", "3600"]),
                seconds=0.01,
                after_bytes=chance.choice([0, 1, 100, 50_000, 10**7]),
            )
        )
    return faults


def push_with_faults(place: Place, layout: Layout, extra: Descriptor, repository: str) -> SociPipelineError | None:
    """Return the error of a push, which must be one of ours with a reason, or None."""
    settings = replace(QUICK, read_timeout=1.0, deadline=1.5, settle_time=0.1)
    with RegistryClient(place.address, settings=settings, credentials=CREDENTIALS) as client:
        try:
            client.blobs.upload(repository, extra, lambda: layout.open_blob(extra))
            push_graph(layout, layout.root(), client, repository, tag="v1", jobs=3)
        except SociPipelineError as error:
            return error if error.reason else None
    return None
