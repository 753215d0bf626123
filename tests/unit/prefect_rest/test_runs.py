"""Flow runs: made once, followed, and read."""

from uuid import UUID

import pytest

from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.errors import PrefectUnavailable
from soci_pipeline.publish.run_names import waiting_name
from tests.support.prefect_answers import BUSY, answering

DEPLOYMENT = str(UUID(int=1))
RUN = str(UUID(int=2))


def test_a_run_is_made_of_the_deployment_with_that_name() -> None:
    answers = {
        "/deployments/name/publish-image/publish": {"id": DEPLOYMENT},
        f"/deployments/{DEPLOYMENT}/create_flow_run": {"id": RUN},
    }
    with answering(answers) as (url, requests), PrefectApi(url) as api:
        assert api.create_run("publish-image/publish", {"image": "x"}) == RUN
        assert api.create_run("publish-image/publish", {"image": "x"}, key="k") == RUN
    assert requests[-1][1] == {"parameters": {"image": "x"}, "idempotency_key": "k", "tags": []}
    assert requests[1][1]["idempotency_key"]


def test_a_run_is_named_by_its_parameters_and_those_of_its_deployment_before_it_starts() -> None:
    commit = "c0ffee" + "0" * 34
    own = {"image": "r.example/team/app", "source": "https://git.example.com/app.git", "ref": "main"}
    answers = {
        "/deployments/name/publish-image/publish": {"id": DEPLOYMENT, "parameters": own},
        f"/deployments/{DEPLOYMENT}/create_flow_run": {"id": RUN},
    }
    with answering(answers) as (url, requests), PrefectApi(url) as api:
        for key in ("a", "b", "a"):
            api.create_run("publish-image/publish", {"ref": commit}, key=key, naming=waiting_name)
    first, second, again = (body["name"] for path, body in requests if path.endswith("create_flow_run"))
    assert first.startswith("team/app from git.example.com/app.git c0ffee000000 #")
    assert first == again != second


def test_a_run_whose_answer_says_busy_is_made_under_one_key() -> None:
    answers = {
        "/deployments/name/publish-image/publish": {"id": DEPLOYMENT},
        f"/deployments/{DEPLOYMENT}/create_flow_run": iter([BUSY, {"id": RUN}]),
    }
    with answering(answers) as (url, requests), PrefectApi(url) as api:
        assert api.create_run("publish-image/publish", {}) == RUN
    assert requests[-1][1]["idempotency_key"] == requests[-2][1]["idempotency_key"]


def test_children_are_the_runs_that_name_it_as_their_parent() -> None:
    with (
        answering({"/flow_runs/filter": [{"id": RUN, "name": "linux-amd64"}]}) as (url, requests),
        PrefectApi(url) as api,
    ):
        assert api.children("r0") == {RUN: "linux-amd64"}
    assert requests[0][1] == {"flow_runs": {"parent_flow_run_id": {"any_": ["r0"]}}}


def test_the_states_of_no_runs_are_not_asked_for() -> None:
    with (
        answering({"/flow_runs/filter": [{"id": RUN, "state_type": "RUNNING"}]}) as (url, requests),
        PrefectApi(url) as api,
    ):
        assert api.states([]) == {}
        assert api.states([RUN]) == {RUN: "RUNNING"}
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("kind", "final", "completed"),
    [("RUNNING", False, False), ("COMPLETED", True, True), ("CRASHED", True, False), ("CANCELLED", True, False)],
)
def test_the_state_of_a_run_says_whether_it_is_over(kind: str, final: bool, completed: bool) -> None:
    answer = {"state_type": kind, "state": {"message": "because"}}
    with answering({"/flow_runs/r1": answer}) as (url, _), PrefectApi(url) as api:
        state = api.state("r1")
    assert (state.is_final, state.is_completed, state.message) == (final, completed, "because")


def test_records_are_asked_for_by_the_runs_that_left_them() -> None:
    with answering({"/artifacts/filter": [{"data": "{}"}]}) as (url, requests), PrefectApi(url) as api:
        assert api.records(("r2", "r3")) == ("{}",)
    assert requests[0][1]["flow_runs"] == {"id": {"any_": ["r2", "r3"]}}


def test_log_lines_come_from_an_offset_on() -> None:
    lines = [{"level": 30, "message": "careful"}]
    with answering({"/logs/filter": lines}) as (url, requests), PrefectApi(url) as api:
        assert list(api.log_lines("r1", offset=7)) == [(30, "careful")]
    assert requests[0][1]["offset"] == 7


def test_a_run_to_cancel_is_given_that_state() -> None:
    with answering({"/flow_runs/r1/set_state": {}}) as (url, requests), PrefectApi(url) as api:
        api.cancel("r1")
    assert requests == [("/flow_runs/r1/set_state", {"state": {"type": "CANCELLING"}})]


@pytest.mark.parametrize("percent", ["NaN", "Infinity", "soon", None])
def test_progress_that_is_not_a_number_is_an_answer_of_another_shape(percent: str | None) -> None:
    answers = {"/artifacts/filter": [{"description": "push", "data": percent}]}
    with answering(answers) as (url, _), PrefectApi(url, deadline_s=0) as api, pytest.raises(PrefectUnavailable):
        api.progress([RUN])
