"""Work pools, and the workers that poll them."""

from typing import Any

import pytest

from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.pools import WorkPool
from tests.support.prefect_answers import answering
from tests.support.webhook import Recorded, loopback


def test_only_workers_that_are_online_count() -> None:
    workers = [{"name": "a", "status": "ONLINE"}, {"name": "b", "status": "OFFLINE"}]
    with answering({"/work_pools/soci-amd64/workers/filter": workers}) as (url, _), PrefectApi(url) as api:
        assert api.online_workers("soci-amd64") == ("a",)


def test_a_pool_that_is_not_there_has_no_workers() -> None:
    with answering({}) as (url, _), PrefectApi(url) as api:
        assert api.online_workers("soci-amd64") == ()


@pytest.mark.parametrize(("limit", "template"), [(3, {"variables": {}}), (None, None)])
def test_a_pool_is_read_as_the_server_has_it(limit: int | None, template: dict[str, Any] | None) -> None:
    document = {"name": "soci", "type": "process", "base_job_template": template, "concurrency_limit": limit}
    with answering({"/work_pools/soci": document}) as (url, _), PrefectApi(url) as api:
        assert api.work_pool("soci") == WorkPool("soci", "process", template or {}, limit)
        assert api.work_pool("other") is None


def test_a_pool_is_made_and_changed() -> None:
    requests: list[tuple[str, str, Any]] = []

    def answer(request: Recorded) -> tuple[int, Any]:
        requests.append((request.method, request.path, request.body))
        return 201, {}

    with loopback(answer) as url, PrefectApi(f"{url}/api") as api:
        api.create_work_pool({"name": "a/b"})
        api.update_work_pool("a/b", {"concurrency_limit": 2})
    assert requests == [
        ("POST", "/api/work_pools/", {"name": "a/b"}),
        ("PATCH", "/api/work_pools/a%2Fb", {"concurrency_limit": 2}),
    ]
