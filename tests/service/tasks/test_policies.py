"""The retry policy, as it is on the task objects that the flows call."""

import importlib
from pathlib import Path
from typing import Any, cast

import pytest
from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed

from soci_pipeline.errors import InvalidInput, SociPipelineError
from tasks.policies import DELAYS_S, JITTER, RETRIES, is_temporary

ROOT = Path(__file__).resolve().parents[3]
NOTHING: Any = None


def every_task() -> list[Task[..., Any]]:
    found: dict[str, Task[..., Any]] = {}
    for path in sorted((ROOT / "tasks").glob("*.py")):
        module = importlib.import_module(f"tasks.{path.stem}")
        found |= {each.name: each for each in vars(module).values() if isinstance(each, Task)}
    return list(found.values())


def failed(error: object) -> State[Any]:
    return Failed(data=error)


@pytest.mark.parametrize("task", every_task(), ids=lambda task: str(task.name))
def test_every_step_is_retried_by_the_one_policy(task: Task[..., Any]) -> None:
    assert task.retries == RETRIES
    assert task.retry_delay_seconds == DELAYS_S
    assert task.retry_jitter_factor == JITTER
    assert task.retry_condition_fn is is_temporary


@pytest.mark.parametrize("task", every_task(), ids=lambda task: str(task.name))
def test_no_step_is_answered_from_a_cache_or_keeps_its_result(task: Task[..., Any]) -> None:
    assert task.cache_policy == NO_CACHE
    assert task.persist_result is False


def test_the_waits_between_attempts_double() -> None:
    waits = [DELAYS_S[0] * 2**attempt for attempt in range(RETRIES)]
    assert waits == DELAYS_S
    assert waits[0] > 0


def asked(state: State[Any]) -> bool:
    return is_temporary(NOTHING, cast("TaskRun", NOTHING), state)


def test_an_error_that_says_it_is_temporary_is_tried_again() -> None:
    assert asked(failed(SociPipelineError("the registry is busy", temporary=True)))


@pytest.mark.parametrize(
    "error", [SociPipelineError("refused"), InvalidInput("not a reference"), RuntimeError("a fault of ours"), None]
)
def test_any_other_error_fails_at_once(error: Exception | None) -> None:
    assert not asked(failed(error))


def test_a_state_without_an_error_is_not_tried_again() -> None:
    assert not asked(Completed())
