"""The retry policy of all tasks: exponential back-off with jitter; the error says whether a retry makes sense.

A task never catches a temporary error, because Prefect would not retry it then. The registry client has its own retries
for single requests; this policy is for whole steps.
"""

from typing import Any, TypedDict

from prefect import Task
from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

RETRIES = 3
DELAYS_S: list[float] = exponential_backoff(backoff_factor=2)(RETRIES)
JITTER = 0.5


class Policy(TypedDict):
    """Arguments of Prefect's ``task`` decorator."""

    retries: int
    retry_delay_seconds: list[float]
    retry_jitter_factor: float
    retry_condition_fn: Any
    cache_policy: CachePolicy
    persist_result: bool


def is_temporary(_task: Task[Any, Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Whether the error of a failed task run is temporary, so that a retry may succeed."""
    return bool(getattr(state.data, "temporary", False))


# Results refer to files on this machine, so a cache keyed by inputs would return invalid results.
STEP: Policy = {
    "retries": RETRIES,
    "retry_delay_seconds": DELAYS_S,
    "retry_jitter_factor": JITTER,
    "retry_condition_fn": is_temporary,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}
