"""The one retry policy: exponential back-off with jitter, and the error itself says whether trying again makes sense.

A task never catches a temporary error, since that would keep Prefect from trying it again. The registry client has
patience of its own for single requests; this one is for the steps around them.
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
    """Whether the error of a failed task run says that the same call may succeed later."""
    return bool(getattr(state.data, "temporary", False))


# Results are handles on this machine's files; a cache by inputs would hit within one home only, and wrongly.
STEP: Policy = {
    "retries": RETRIES,
    "retry_delay_seconds": DELAYS_S,
    "retry_jitter_factor": JITTER,
    "retry_condition_fn": is_temporary,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}
