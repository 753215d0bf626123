"""Work pools, and the workers that poll them."""

from soci_pipeline.prefect_rest.client import PrefectApi
from tests.support.prefect_answers import answering


def test_only_workers_that_are_online_count() -> None:
    workers = [{"name": "a", "status": "ONLINE"}, {"name": "b", "status": "OFFLINE"}]
    with answering({"/work_pools/soci-amd64/workers/filter": workers}) as (url, _), PrefectApi(url) as api:
        assert api.online_workers("soci-amd64") == ("a",)


def test_a_pool_that_is_not_there_has_no_workers() -> None:
    with answering({}) as (url, _), PrefectApi(url) as api:
        assert api.online_workers("soci-amd64") == ()
