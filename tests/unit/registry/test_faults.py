"""Each fault against each operation; docs/fault-matrix.md is the table of it.

A cell ends in one of two ways: the operation comes through, or it ends with a named error. Nothing may hang, nothing
half-done may show, and no upload session may stay open.
"""

import io
import itertools
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from soci_pipeline.errors import DeadlineExceeded
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import (
    AccessRefused,
    ContentMismatch,
    ManifestUnknown,
    RegistryError,
    RegistryUnreachable,
)
from soci_pipeline.registry.server import serving
from tests.support.fault_plans import BLOB, LARGE, SESSION, Place, faulty_registry, run_random_plans
from tests.support.faults import Fault, FaultPlan, Kind
from tests.support.registries import QUICK, described, noise, push_image, upload

SMALL = noise(5_000, seed=3)
MOUNTED = noise(6_000, seed=5)


@dataclass(frozen=True)
class Operation:
    """One thing that the client can do, and the request in it that a fault is planned for."""

    name: str
    method: str
    path: str
    run: Callable[[RegistryClient, str], None]
    content: bool = False


def upload_small(client: RegistryClient, repository: str) -> None:
    descriptor = upload(client, SMALL, to=repository)
    assert client.blobs.read(repository, descriptor) == SMALL


def upload_large(client: RegistryClient, repository: str) -> None:
    descriptor = upload(client, LARGE, to=repository)
    assert client.blobs.read(repository, descriptor) == LARGE


def mount(client: RegistryClient, repository: str) -> None:
    descriptor = upload(client, MOUNTED, to="other/app")
    client.blobs.upload(repository, descriptor, lambda: io.BytesIO(MOUNTED), mount_from="other/app")
    assert client.blobs.read(repository, descriptor) == MOUNTED


def put_manifest(client: RegistryClient, repository: str) -> None:
    descriptor, _ = push_image(client, "new", to=repository)
    assert client.manifests.head(repository, "new") == descriptor


def put_referrer(client: RegistryClient, repository: str) -> None:
    subject, manifest = push_image(client, "v1", to=repository)
    referrer = manifest.replaced(layers=(), subject=subject, artifact_type="application/x")
    client.manifests.put(repository, referrer.descriptor.digest, referrer.encode(), referrer.media_type)
    assert [entry.digest for entry in client.referrers.list(repository, subject.digest)] == [referrer.descriptor.digest]


def read_manifest(client: RegistryClient, repository: str) -> None:
    descriptor, data = client.manifests.get(repository, "v1")
    assert Digest.of(data) == descriptor.digest


def read_blob(client: RegistryClient, repository: str) -> None:
    assert client.blobs.read(repository, described(noise(2000))) == noise(2000)


def read_range(client: RegistryClient, repository: str) -> None:
    assert len(client.blobs.read_range(repository, Digest.of(noise(2000)), 100, 1100)) == 1000


def list_tags(client: RegistryClient, repository: str) -> None:
    assert "v1" in client.tags.list(repository)


def delete_tag(client: RegistryClient, repository: str) -> None:
    push_image(client, "old", to=repository)
    client.tags.delete(repository, "old")
    assert client.tags.list(repository) == ("v1",)


OPERATIONS = (
    Operation("look for a blob", "HEAD", BLOB, upload_small),
    Operation("open an upload", "POST", r"/blobs/uploads/$", upload_small),
    Operation("upload at once", "PUT", SESSION, upload_small),
    Operation("upload a part", "PATCH", SESSION, upload_large),
    Operation("close an upload", "PUT", SESSION, upload_large),
    Operation("mount", "POST", r"/cell/\d+/blobs/uploads/$", mount),
    Operation("push a manifest", "PUT", r"/manifests/new", put_manifest),
    Operation("push a referrer", "PUT", r"/manifests/sha256:", put_referrer),
    Operation("list referrers", "GET", r"/referrers/", put_referrer),
    Operation("look for a manifest", "HEAD", r"/manifests/new", put_manifest),
    Operation("read a manifest", "GET", r"/manifests/v1", read_manifest, content=True),
    Operation("read a blob", "GET", BLOB, read_blob, content=True),
    Operation("read a range", "GET", BLOB, read_range),
    Operation("list tags", "GET", r"/tags/list", list_tags),
    Operation("delete a tag", "DELETE", r"/manifests/old", delete_tag),
)
PASSING = {
    "429 with Retry-After": Fault("", "", status=429, code="TOOMANYREQUESTS", retry_after="0"),
    "503": Fault("", "", status=503),
    "500 twice": Fault("", "", status=500, code="UNKNOWN", times=2),
    "delay": Fault("", "", kind=Kind.DELAY, seconds=0.05),
    "reset before the answer": Fault("", "", kind=Kind.RESET),
    "reset in the body": Fault("", "", kind=Kind.RESET, after_bytes=3_000),
    "answer lost": Fault("", "", kind=Kind.LOST_ANSWER),
    "answer cut": Fault("", "", kind=Kind.TRUNCATE, after_bytes=10),
    "token expired": Fault("", "", kind=Kind.EXPIRED_TOKEN),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with faulty_registry(tmp_path_factory.mktemp("registry")) as place:
        yield place


NUMBERS = itertools.count()


@pytest.fixture
def place(running: Place) -> Place:
    """With what the reading operations read, put there without faults."""
    running.plan.replace([])
    place = replace(running, repository=f"cell/{next(NUMBERS)}")
    with place.client() as client:
        push_image(client, "v1", to=place.repository)
    return place


def names(operation: Operation) -> str:
    return operation.name


@pytest.mark.parametrize("operation", OPERATIONS, ids=names)
@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_survived(place: Place, operation: Operation, fault: str) -> None:
    place.expect(PASSING[fault], operation.method, operation.path)
    # An answer to a deletion that was lost cannot be told from a tag that was never there.
    told_apart = operation.name != "delete a tag" or fault != "answer lost"
    with place.client() as client, nullcontext() if told_apart else pytest.raises(ManifestUnknown):
        operation.run(client, place.repository)
    assert place.plan.struck
    # A session whose name never arrived can be cancelled by nobody; registries drop it after some time.
    assert len(place.leftovers()) == (
        fault == "answer lost" and operation.method == "POST" and operation.name != "mount"
    )


@pytest.mark.parametrize("operation", OPERATIONS, ids=names)
@pytest.mark.parametrize(("status", "temporary"), [(503, True), (429, True), (400, False)])
def test_a_fault_that_stays_ends_with_its_name(
    place: Place, operation: Operation, status: int, temporary: bool
) -> None:
    place.expect(Fault("", "", status=status, code="X", times=10_000), operation.method, operation.path)
    if operation.name == "mount" or (operation.name == "list referrers" and status == 400):
        # There is another way to the same end, which is taken where it is open.
        return
    with place.client() as client, pytest.raises(RegistryError) as caught:
        operation.run(client, place.repository)
    assert (caught.value.status, caught.value.temporary) == (status, temporary)
    assert len(place.plan.struck) <= QUICK.attempts
    assert not place.leftovers()


@pytest.mark.parametrize("operation", OPERATIONS, ids=names)
def test_a_refusal_of_access_is_not_tried_again(place: Place, operation: Operation) -> None:
    place.expect(Fault("", "", status=403, code="DENIED", times=10_000), operation.method, operation.path)
    with place.client() as client, pytest.raises(AccessRefused):
        operation.run(client, place.repository)
    # A mount that is refused becomes an upload first.
    assert len(place.plan.struck) == (2 if operation.name == "mount" else 1)
    assert not place.leftovers()


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.content], ids=names)
def test_a_flipped_bit_never_passes_for_content(place: Place, operation: Operation) -> None:
    place.expect(Fault("", "", kind=Kind.CORRUPT, after_bytes=20), operation.method, operation.path)
    with place.client() as client, pytest.raises(ContentMismatch):
        operation.run(client, place.repository)


@pytest.mark.parametrize("taken", [0, 1, 100_000, 262_144, 10**9])
def test_a_stale_range_leads_to_the_right_bytes_all_the_same(place: Place, taken: int) -> None:
    cut = Fault("PATCH", SESSION, nth=2, kind=Kind.RESET, after_bytes=50_000)
    place.plan.replace([cut, Fault("GET", SESSION, kind=Kind.STALE_RANGE, after_bytes=taken)])
    with place.client() as client:
        upload_large(client, place.repository)
    assert len(place.plan.struck) == 2
    assert not place.leftovers()


@pytest.mark.parametrize("status", [404, 416])
def test_a_session_that_is_refused_is_replaced_by_a_new_one(place: Place, status: int) -> None:
    refused = Fault("PATCH", SESSION, nth=2, status=status, code="BLOB_UPLOAD_UNKNOWN")
    place.plan.replace([refused, Fault("GET", SESSION, status=404, code="BLOB_UPLOAD_UNKNOWN", times=9)])
    with place.client() as client:
        upload_large(client, place.repository)
    assert count(place, "POST") == 2
    assert not place.leftovers()


def test_a_part_that_was_cut_goes_on_where_the_registry_stands(place: Place) -> None:
    place.plan.replace([Fault("PATCH", SESSION, nth=2, kind=Kind.RESET, after_bytes=100_000)])
    sent: list[int] = []
    with place.client() as client:
        client.blobs.upload(place.repository, described(LARGE), lambda: io.BytesIO(LARGE), on_bytes=sent.append)
        assert client.blobs.read(place.repository, described(LARGE)) == LARGE
    assert count(place, "POST") == 1
    assert sum(sent) == len(LARGE)


def test_a_cut_in_mid_download_goes_on_with_a_range(place: Place) -> None:
    place.plan.replace([Fault("GET", BLOB, kind=Kind.TRUNCATE, after_bytes=300_000)])
    with place.client() as client:
        upload_large(client, place.repository)
    assert len([path for method, path in place.plan.requests if method == "GET" and "/blobs/sha256:" in path]) == 2


def test_content_that_is_damaged_in_the_registry_is_named(place: Place) -> None:
    with place.client() as client:
        descriptor = upload(client, SMALL, to=place.repository)
        path = place.folder / place.repository.replace("/", "+") / "blobs" / "sha256" / descriptor.digest.hex
        path.chmod(0o644)
        path.write_bytes(b"x" + SMALL[1:])
        with pytest.raises(ContentMismatch, match=descriptor.digest.hex):
            client.blobs.read(place.repository, descriptor)


def test_a_retry_after_beyond_the_deadline_ends_at_once(place: Place) -> None:
    place.plan.replace([Fault("GET", "/tags/list", status=429, retry_after="3600", times=99)])
    with place.client() as client, pytest.raises(RegistryError) as caught:
        client.tags.list(place.repository)
    assert (caught.value.status, caught.value.retry_after) == (429, 3600.0)
    assert len(place.plan.struck) == 1


def test_a_deadline_ends_all_repeats(place: Place) -> None:
    place.plan.replace([Fault("GET", "/tags/list", kind=Kind.DELAY, seconds=0.4, times=99)])
    settings = replace(QUICK, deadline=0.3, read_timeout=0.1)
    began = time.monotonic()
    with place.client(settings) as client, pytest.raises((DeadlineExceeded, RegistryUnreachable)):
        client.tags.list(place.repository)
    assert time.monotonic() - began < 2.0


def count(place: Place, method: str) -> int:
    return len([each for each in place.plan.requests if each[0] == method])


def test_random_fault_plans_end_whole_or_with_a_name_and_an_unmoved_tag(running: Place, tmp_path: Path) -> None:
    """A sample; the deep tier runs two hundred."""
    outcomes = run_random_plans(running, tmp_path, 16)
    assert min(outcomes.values()) >= 4, outcomes


def test_the_table_in_the_docs_names_every_fault_and_every_operation() -> None:
    table = (Path(__file__).parents[3] / "docs" / "fault-matrix.md").read_text()
    missing = [name for name in (*PASSING, *(operation.name for operation in OPERATIONS)) if name not in table]
    assert not missing


def test_every_test_that_the_table_names_exists() -> None:
    root = Path(__file__).parents[3]
    table = (root / "docs" / "fault-matrix.md").read_text()
    rows = [line for line in table.splitlines() if re.search(r"`(tests/|test_)", line)]
    assert len(rows) > 20
    for row in rows:
        files = re.findall(r"`(tests/[\w/]+\.py)`", row) or ["tests/unit/registry/test_faults.py"]
        texts = [(root / name).read_text() for name in files]
        lost = [name for name in re.findall(r"`(test_\w+)`", row) if not any(f"def {name}(" in text for text in texts)]
        assert not lost, row


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.LOST_ANSWER])
def test_a_planned_reset_is_one_of_tcp_s(kind: Kind, tmp_path: Path) -> None:
    plan = FaultPlan([Fault("GET", "/v2/", kind=kind)])
    with serving(tmp_path, middleware=plan.middleware) as address:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(f"GET /v2/ HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
            with pytest.raises(ConnectionResetError):
                connection.recv(100)
