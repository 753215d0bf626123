"""Why a run of a publication waits, as the command says it."""

from typing import Any
from uuid import UUID

import pytest

from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.runs import RunState
from soci_pipeline.remote_publish.follow import RunProgress
from soci_pipeline.remote_publish.waiting import wait_of
from tests.support.prefect_answers import answering

POOL: dict[str, Any] = {"name": "p", "type": "process", "base_job_template": {}, "concurrency_limit": 2}
ONLINE = [{"name": "w", "status": "ONLINE"}]


@pytest.mark.parametrize(
    ("pool", "workers", "active", "reason", "advice"),
    [
        (None, [], 0, "missing work pool: p", "soci-pipeline setup"),
        (POOL | {"is_paused": True}, ONLINE, 0, "the work pool p is paused", "prefect work-pool resume p"),
        (POOL, [], 0, "no worker is online for the work pool p", "prefect worker start --pool p"),
        (POOL, [{"name": "w", "status": "OFFLINE"}], 0, "no worker is online", "prefect worker start --pool p"),
        (POOL, ONLINE, 2, "has reached its concurrency limit (2)", "set-concurrency-limit p"),
    ],
)
def test_a_late_run_says_what_its_pool_lacks_and_the_next_step(
    pool: Any, workers: list[Any], active: int, reason: str, advice: str
) -> None:
    answers: dict[str, Any] = {"/work_pools/p/workers/filter": workers, "/flow_runs/count": active}
    with answering(answers | ({"/work_pools/p": pool} if pool else {})) as (url, _), PrefectApi(url) as api:
        wait = wait_of(api, "Late", "p")
    assert wait is not None
    assert reason in wait.reason
    assert advice in wait.advice


def test_a_run_that_a_worker_will_take_has_no_reason_to_wait() -> None:
    answers = {"/work_pools/p/workers/filter": ONLINE, "/flow_runs/count": 1, "/work_pools/p": POOL}
    with answering(answers) as (url, _), PrefectApi(url) as api:
        assert wait_of(api, "Late", "p") is None
        limited = wait_of(api, "AwaitingConcurrencySlot", "p")
    assert limited is not None
    assert "its deployment has reached its concurrency limit" in limited.reason


def test_the_reason_is_said_once_for_the_publication_and_each_branch(caplog: pytest.LogCaptureFixture) -> None:
    child = {"id": str(UUID(int=2)), "name": "b", "tags": ["platform:linux/arm64"], "work_pool_name": "p"}
    answers: dict[str, Any] = {
        "/work_pools/p/workers/filter": [],
        "/work_pools/p": POOL,
        "/flow_runs/filter": [child | {"state_type": "SCHEDULED", "state_name": "Late"}],
    }
    progress = RunProgress()
    with answering(answers) as (url, _), PrefectApi(url) as api:
        for _ in range(2):
            progress.show(api, "r", RunState("SCHEDULED", "", "Late", "p"))
    said = "waiting: no worker is online for the work pool p\n  next: Run `prefect worker start --pool p`."
    assert [each for each in caplog.messages if "waiting:" in each] == [
        f"  publication: {said}",
        f"  linux/arm64: {said}",
    ]
