"""Automations, found by their name."""

from typing import Any

from soci_pipeline.prefect_rest.client import PrefectApi
from tests.support.prefect_answers import answering
from tests.support.webhook import Recorded, loopback


def test_all_automations_of_a_name_are_found() -> None:
    found = [{"id": "a1", "name": "crashed"}, {"id": "a2", "name": "crashed"}]
    with answering({"/automations/filter": found}) as (url, requests), PrefectApi(url) as api:
        assert api.automations("crashed") == found
    assert requests == [("/automations/filter", {"automations": {"name": {"any_": ["crashed"]}}})]


def test_an_automation_is_made_and_replaced() -> None:
    requests: list[tuple[str, str, Any]] = []

    def answer(request: Recorded) -> tuple[int, Any]:
        requests.append((request.method, request.path, request.body))
        return 201, {}

    with loopback(answer) as url, PrefectApi(f"{url}/api") as api:
        api.create_automation({"name": "crashed"})
        api.update_automation("a/1", {"name": "crashed", "enabled": False})
    assert requests == [
        ("POST", "/api/automations/", {"name": "crashed"}),
        ("PUT", "/api/automations/a%2F1", {"name": "crashed", "enabled": False}),
    ]
