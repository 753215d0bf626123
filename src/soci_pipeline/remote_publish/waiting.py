"""Why a flow run has not started: its work pool, the workers that poll it, and concurrency limits."""

from dataclasses import dataclass

from soci_pipeline.prefect_rest.client import PrefectApi

_AT_LIMIT = "AwaitingConcurrencySlot"


@dataclass(frozen=True, slots=True)
class Wait:
    """The reason why a run has not started, and the next step."""

    reason: str
    advice: str


def wait_of(api: PrefectApi, state: str, pool: str) -> Wait | None:
    """Explain why a run in this state (such as ``Late``) has not started; return None if a worker should take it."""
    if state == _AT_LIMIT:
        return Wait("its deployment has reached its concurrency limit", "Wait, or raise that limit.")
    if not pool:
        return None
    found = api.work_pool(pool)
    if found is None:
        return Wait(f"missing work pool: {pool}", "Run `soci-pipeline setup`.")
    if found.is_paused:
        return Wait(f"the work pool {pool} is paused", f"Run `prefect work-pool resume {pool}`.")
    if not api.online_workers(pool):
        return Wait(f"no worker is online for the work pool {pool}", f"Run `prefect worker start --pool {pool}`.")
    limit = found.concurrency_limit
    if limit is not None and api.active_runs(pool) >= limit:
        advice = f"Wait, or raise it with `prefect work-pool set-concurrency-limit {pool} N`."
        return Wait(f"the work pool {pool} has reached its concurrency limit ({limit})", advice)
    return None
