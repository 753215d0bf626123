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


def test_a_lost_answer_to_a_creation_makes_no_second_one() -> None:
    stored: list[dict[str, Any]] = []

    def answer(request: Recorded) -> tuple[int, Any]:
        if request.path.endswith("/automations/"):
            stored.append({"id": "a", "name": "crashed"})
            return 503, "the answer is lost"
        return 200, stored

    with loopback(answer) as url, PrefectApi(f"{url}/api", deadline_s=10) as api:
        api.create_automation({"name": "crashed"})
    assert len(stored) == 1


def test_an_automation_whose_creation_failed_is_made_by_the_next_attempt() -> None:
    stored: list[dict[str, Any]] = []
    attempts = 0

    def answer(request: Recorded) -> tuple[int, Any]:
        nonlocal attempts
        if request.path.endswith("/automations/"):
            attempts += 1
            if attempts == 1:
                return 503, "busy"
            stored.append({"id": "a", "name": "crashed"})
            return 201, stored[0]
        return 200, stored

    with loopback(answer) as url, PrefectApi(f"{url}/api", deadline_s=10) as api:
        api.create_automation({"name": "crashed"})
    assert (len(stored), attempts) == (1, 2)
