"""Why a flow run waits to be started: its work pool, the workers that poll it, and limits of concurrent runs."""

from dataclasses import dataclass

from soci_pipeline.prefect_rest.client import PrefectApi

_AT_LIMIT = "AwaitingConcurrencySlot"


@dataclass(frozen=True, slots=True)
class Wait:
    """The reason why a run is not started, and what helps."""

    reason: str
    advice: str


def wait_of(api: PrefectApi, state: str, pool: str) -> Wait | None:
    """Why a run in this state (by its name, for example ``Late``) is not started; None if a worker should take it."""
    if state == _AT_LIMIT:
        return Wait("its deployment runs as many as its concurrency limit allows", "Wait, or raise that limit.")
    if not pool:
        return None
    found = api.work_pool(pool)
    if found is None:
        return Wait(f"there is no work pool {pool}", "Run `soci-pipeline setup`.")
    if found.is_paused:
        return Wait(f"the work pool {pool} is paused", f"Run `prefect work-pool resume {pool}`.")
    if not api.online_workers(pool):
        return Wait(f"no worker is online for the work pool {pool}", f"Run `prefect worker start --pool {pool}`.")
    limit = found.concurrency_limit
    if limit is not None and api.active_runs(pool) >= limit:
        advice = f"Wait, or raise it with `prefect work-pool set-concurrency-limit {pool} N`."
        return Wait(f"the work pool {pool} runs as many as its concurrency limit allows ({limit})", advice)
    return None
