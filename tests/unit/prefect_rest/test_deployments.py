"""Deployments, listed page by page."""

import itertools

import pytest

from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectRefused
from tests.support.prefect_answers import answering


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
