"""Deployments, listed page by page."""

import itertools
from typing import Any

import pytest

from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectRefused
from tests.support.prefect_answers import answering
from tests.support.webhook import Recorded, loopback


def _page(number: int) -> list[dict[str, str]]:
    return [{"name": f"d{number}-{each}"} for each in range(200)]


def test_pages_are_read_until_one_is_not_full() -> None:
    with answering({"/deployments/filter": iter([_page(0), _page(1)[:3]])}) as (url, requests), PrefectApi(url) as api:
        assert len(api.deployments_of("flow")) == 203
    assert [body["offset"] for _, body in requests] == [0, 200]


def test_a_server_that_gives_the_same_page_without_end_is_read_once_more() -> None:
    with answering({"/deployments/filter": _page(0)}) as (url, requests), PrefectApi(url) as api:
        assert len(api.deployments_of("flow")) == 200
    assert len(requests) == 2


def test_a_server_that_lists_deployments_without_end_is_rejected() -> None:
    endless = (_page(number) for number in itertools.count())
    with (
        answering({"/deployments/filter": endless}) as (url, _),
        PrefectApi(url) as api,
        pytest.raises(PrefectRefused, match="more than 10000 deployments of flow"),
    ):
        api.deployments_of("flow")


def test_a_deployment_and_its_schedules_are_created_changed_and_deleted_by_their_paths() -> None:
    seen: list[tuple[str, str, Any]] = []

    def answer(request: Recorded) -> tuple[int, Any]:
        seen.append((request.method, request.path.removeprefix("/api"), request.body))
        return (404, {}) if request.method == "DELETE" else (200, {})

    with loopback(answer) as url, PrefectApi(f"{url}/api") as api:
        api.create_deployment({"name": "web"})
        api.update_deployment("d/1", {"paused": True})
        api.create_schedule("d/1", {"active": True})
        api.update_schedule("d/1", "s", {"active": False})
        # What is gone already need not be deleted.
        api.delete_schedule("d/1", "s")
        api.delete_deployment("d/1")
    assert [(method, path) for method, path, _ in seen] == [
        ("POST", "/deployments/"),
        ("PATCH", "/deployments/d%2F1"),
        ("POST", "/deployments/d%2F1/schedules"),
        ("PATCH", "/deployments/d%2F1/schedules/s"),
        ("DELETE", "/deployments/d%2F1/schedules/s"),
        ("DELETE", "/deployments/d%2F1"),
    ]
    bodies = [{"name": "web"}, {"paused": True}, [{"active": True}], {"active": False}]
    assert [body for method, _, body in seen if method != "DELETE"] == bodies
