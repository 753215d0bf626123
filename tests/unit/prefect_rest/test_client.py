"""Every call, against a server whose answers have another shape."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectRefused, PrefectUnavailable
from tests.support.webhook import loopback

RUN = "00000000-0000-0000-0000-000000000001"
CALLS: dict[str, Callable[[PrefectApi], object]] = {
    "create": lambda api: api.create_run("publish-image/publish", {}),
    "state": lambda api: api.state(RUN),
    "states": lambda api: api.states([RUN]),
    "children": lambda api: api.children(RUN),
    "records": lambda api: api.records([RUN]),
    "lines": lambda api: list(api.log_lines(RUN, offset=0)),
    "workers": lambda api: api.online_workers("pool"),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_of_another_shape_is_an_error_of_the_library(call: str) -> None:
    answers: list[Any] = []
    shapes: list[Any] = [None, 1, "text", [], [1], [None], {"id": RUN, "state": "text"}, {"state": [1]}, {"id": {}}]
    lists: list[Any] = [[{}], [{"id": RUN}], [{"level": "x", "message": ""}], [{"level": float("inf"), "message": 1}]]
    with loopback(lambda _: (200, answers[-1])) as url, PrefectApi(url, deadline_s=0) as api:
        for answer in (*shapes, *lists):
            answers.append(answer)
            with contextlib.suppress(PrefectRefused, PrefectUnavailable):
                CALLS[call](api)
