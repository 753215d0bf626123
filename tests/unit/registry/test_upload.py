import io
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from soci_pipeline.errors import DamagedContent
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import BrokenAnswer, RepositoryUnknown
from soci_pipeline.registry.server import ServerSettings
from tests.support.faults import Fault, FaultPlan, Kind
from tests.support.older_registry import OlderRegistry
from tests.support.registries import (
    CREDENTIALS,
    LOGIN,
    QUICK,
    REPOSITORY,
    described,
    leftovers,
    noise,
    registry,
    upload,
)
from tests.support.strange import strange

DATA = noise(700_000)
BLOB = described(DATA)


def methods(plan: FaultPlan) -> list[str]:
    return [method for method, path in plan.requests if "/uploads/" in path]


def test_what_is_there_is_not_sent_again(tmp_path: Path) -> None:
    with registry(tmp_path) as client:
        assert client.blobs.upload(REPOSITORY, BLOB, lambda: io.BytesIO(DATA)) is True
        assert client.blobs.upload(REPOSITORY, BLOB, lambda: io.BytesIO(b"not even looked at")) is False


def test_a_blob_is_mounted_where_its_own_repository_may_be_read(tmp_path: Path) -> None:
    server = ServerSettings(login=LOGIN)
    with registry(tmp_path, server=server, credentials=CREDENTIALS) as client:
        upload(client, DATA, to="other/app")
        assert not client.blobs.upload(REPOSITORY, BLOB, lambda: io.BytesIO(b""), mount_from="other/app")
        assert client.blobs.exists(REPOSITORY, BLOB)


def test_where_a_mount_is_not_possible_the_bytes_go_up(tmp_path: Path) -> None:
    with registry(tmp_path, older=OlderRegistry(mount=False)) as client:
        upload(client, DATA, to="other/app")
        assert client.blobs.upload(REPOSITORY, BLOB, lambda: io.BytesIO(DATA), mount_from="other/app")


@pytest.mark.parametrize(
    ("part", "expected"),
    [(1 << 20, ["POST", "PUT"]), (700_000, ["POST", "PUT"]), (350_000, ["POST", "PATCH", "PATCH", "PUT"])],
)
def test_a_blob_above_the_size_of_a_part_goes_up_in_parts(tmp_path: Path, part: int, expected: list[str]) -> None:
    plan = FaultPlan()
    with registry(tmp_path, faults=plan, settings=replace(QUICK, part_size=part)) as client:
        upload(client, DATA)
    assert methods(plan) == expected


def test_parts_are_as_large_as_the_registry_wants_them(tmp_path: Path) -> None:
    plan = FaultPlan()
    settings = replace(QUICK, part_size=100_000)
    with registry(tmp_path, faults=plan, older=OlderRegistry(least_part=300_000), settings=settings) as client:
        upload(client, DATA)
    assert methods(plan) == ["POST", "PATCH", "PATCH", "PATCH", "PUT"]


def test_a_local_copy_that_is_damaged_is_named_and_not_tried_again(tmp_path: Path) -> None:
    plan = FaultPlan()
    with registry(tmp_path, faults=plan) as client, pytest.raises(DamagedContent, match=BLOB.digest.hex):
        client.blobs.upload(REPOSITORY, BLOB, lambda: io.BytesIO(b"x" + DATA[1:]))
    assert methods(plan).count("POST") == 1
    assert not leftovers(tmp_path)


def test_a_local_copy_that_is_too_short_is_named(tmp_path: Path) -> None:
    with registry(tmp_path) as client, pytest.raises(DamagedContent, match="ends after"):
        client.blobs.upload(REPOSITORY, BLOB, lambda: io.BytesIO(DATA[:-1]))
    assert not leftovers(tmp_path)


def test_an_interruption_cancels_the_session(tmp_path: Path) -> None:
    def interrupt(count: int) -> None:
        raise KeyboardInterrupt

    with registry(tmp_path) as client, pytest.raises(KeyboardInterrupt):
        client.blobs.upload(REPOSITORY, BLOB, lambda: io.BytesIO(DATA), on_bytes=interrupt)
    assert not leftovers(tmp_path)


def test_progress_takes_back_what_has_to_go_up_again(tmp_path: Path) -> None:
    plan = FaultPlan([Fault("PUT", "/blobs/uploads/", kind=Kind.STATUS, status=503)])
    counts: list[int] = []
    with registry(tmp_path, faults=plan, settings=replace(QUICK, part_size=1 << 20)) as client:
        client.blobs.upload(REPOSITORY, BLOB, lambda: io.BytesIO(DATA), on_bytes=counts.append)
    assert sum(counts) == len(DATA)
    assert min(counts) == -len(DATA)


def test_a_missing_repository_is_told_at_once() -> None:
    posts = 0

    async def answer(request: Request) -> Response:
        nonlocal posts
        posts += request.method == "POST"
        message = "The repository with name 'a' does not exist in the registry with id '1'"
        return JSONResponse({"errors": [{"code": "NAME_UNKNOWN", "message": message}]}, status_code=404)

    with (
        strange(answer) as address,
        RegistryClient(address, settings=QUICK) as client,
        pytest.raises(RepositoryUnknown, match="does not exist") as caught,
    ):
        client.blobs.upload("a", BLOB, lambda: io.BytesIO(DATA))
    assert caught.value.advice
    assert posts == 1


def test_a_registry_that_stored_something_else_is_not_believed() -> None:
    async def answer(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(status_code=404)
        if request.method == "POST":
            return Response(status_code=202, headers={"Location": "/v2/a/blobs/uploads/1?state=abc%3D"})
        assert request.query_params["state"] == "abc="
        return Response(status_code=201, headers={"Docker-Content-Digest": "sha256:" + "0" * 64})

    with strange(answer) as address, RegistryClient(address, settings=QUICK) as client:
        small = described(b"x")
        with pytest.raises(BrokenAnswer, match="stored"):
            client.blobs.upload("a", small, lambda: io.BytesIO(b"x"))
