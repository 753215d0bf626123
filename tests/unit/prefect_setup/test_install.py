"""A set-up that Prefect rejects, and what is not valid: nothing is half-done without a word."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from soci_pipeline.errors import InvalidInput, SociPipelineError, ToolFailed
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectUnavailable
from soci_pipeline.prefect_setup.install import install
from tests.support.webhook import Recorded, loopback

DEPLOYMENTS = Path(__file__).resolve().parents[3] / "deployments"
POOL: dict[str, Any] = {"name": "soci-control", "type": "process", "base_job_template": {}, "concurrency_limit": None}


@contextmanager
def server(special: Callable[[Recorded], tuple[int, Any] | None]) -> Iterator[tuple[PrefectApi, list[str]]]:
    """A client of a server that has nothing, apart from special answers; and the paths of all changes."""
    changes: list[str] = []

    def answer(request: Recorded) -> tuple[int, Any]:
        if request.method != "GET" and not request.path.endswith("/filter"):
            changes.append(f"{request.method} {request.path}")
        if found := special(request):
            return found
        if request.method == "GET":
            return 404, {"detail": "Not Found"}
        return (200, []) if request.path.endswith("/filter") else (201, {"id": "an-id"})

    with loopback(answer) as url, PrefectApi(f"{url}/api", deadline_s=0) as api:
        yield api, changes


def failed(api: PrefectApi, python: str | None = None) -> SociPipelineError:
    with pytest.raises(SociPipelineError) as raised:
        install(api, DEPLOYMENTS, notify_block=None, worker_python=python)
    return raised.value


@pytest.mark.parametrize("status", [401, 403, 405, 409, 422])
def test_a_change_that_prefect_rejects_is_named_with_its_cause(status: int) -> None:
    def rejecting(request: Recorded) -> tuple[int, Any] | None:
        return (status, {"detail": "not by you"}) if request.path == "/api/automations/" else None

    with server(rejecting) as (api, changes):
        error = failed(api)
    assert isinstance(error, ToolFailed)
    assert error.reason == (
        f'cannot set up Prefect: Prefect answered {status} to POST /automations/: {{"detail": "not by you"}}'
    )
    assert "run this again" in (error.advice or "")
    assert changes == [*["POST /api/work_pools/"] * 3, "POST /api/automations/"]


def test_a_server_that_goes_away_is_what_is_said() -> None:
    with server(lambda request: (503, "busy") if request.method == "GET" else None) as (api, changes):
        error = failed(api)
    assert isinstance(error, PrefectUnavailable)
    assert changes == []


@pytest.mark.parametrize("answer", [[1], {"detail": 1}, {"name": "x", "type": "process", "base_job_template": 7}, "x"])
def test_an_answer_of_another_shape_is_one_of_another_server(answer: Any) -> None:
    with server(lambda request: (200, answer) if request.method == "GET" else None) as (api, changes):
        error = failed(api)
    assert isinstance(error, PrefectUnavailable)
    assert "unexpected document;" in error.reason
    assert changes == []


def test_a_pool_without_the_variable_for_a_python_is_named_before_anything_is_changed() -> None:
    def one_pool(request: Recorded) -> tuple[int, Any] | None:
        return (200, POOL) if request.path == "/api/work_pools/soci-control" and request.method == "GET" else None

    with server(one_pool) as (api, changes):
        error = failed(api, python="/opt/python")
        assert changes == []
        notes = install(api, DEPLOYMENTS, notify_block=None, worker_python=None)
    assert isinstance(error, InvalidInput)
    assert "work pool soci-control" in error.reason
    assert changes[0] == "PATCH /api/work_pools/soci-control"
    assert notes[0].result == "updated"


def test_a_pool_of_another_type_gets_no_python() -> None:
    def one_pool(request: Recorded) -> tuple[int, Any] | None:
        pool = POOL | {"type": "docker"}
        return (200, pool) if request.path == "/api/work_pools/soci-control" and request.method == "GET" else None

    with server(one_pool) as (api, _):
        notes = install(api, DEPLOYMENTS, notify_block=None, worker_python="/opt/python")
    commands = {note.name: note.result for note in notes if note.kind == "commands"}
    assert commands["soci-control"] == "the Python of each worker"
    assert commands["soci-amd64"] == "/opt/python -m prefect.engine"


def test_an_empty_success_is_no_fault() -> None:
    def no_content(request: Recorded) -> tuple[int, Any] | None:
        if request.method == "PATCH":
            return 204, b""
        return (200, POOL) if request.path.startswith("/api/work_pools/") and request.method == "GET" else None

    with server(no_content) as (api, changes):
        install(api, DEPLOYMENTS, notify_block=None, worker_python=None)
    assert changes[0] == "PATCH /api/work_pools/soci-control"


def test_a_block_type_that_differs_is_updated_and_a_missing_schema_is_added() -> None:
    def old_type(request: Recorded) -> tuple[int, Any] | None:
        if request.method == "PATCH":
            return 204, b""
        known = request.method == "GET" and request.path == "/api/block_types/slug/aws-secret"
        return (200, {"id": "t", "description": "older"}) if known else None

    with server(old_type) as (api, changes):
        notes = install(api, DEPLOYMENTS, notify_block=None, worker_python=None)
    assert notes[-1].result == "updated"
    assert changes[-2:] == ["PATCH /api/block_types/t", "POST /api/block_schemas/"]


def test_a_deployment_under_its_old_name_is_listed_and_stays() -> None:
    def old_release(request: Recorded) -> tuple[int, Any] | None:
        return (200, {"id": "an-id"}) if request.path == "/api/deployments/name/publish-image/default" else None

    with server(old_release) as (api, changes):
        notes = install(api, DEPLOYMENTS, notify_block=None, worker_python=None)
    (note,) = [note for note in notes if note.kind == "deployments"]
    assert note.name == "publish-image/default"
    assert note.result.startswith("renamed to publish-image/publish; ")
    assert "`prefect deployment delete publish-image/default`" in note.result
    assert not any("deployments" in change for change in changes)
