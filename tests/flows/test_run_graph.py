"""What the run graph draws: a step that waits for a branch stands behind it."""

from uuid import UUID

from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun, TaskRunResult
from prefect.runtime import flow_run, task_run

from tasks.branches import Started
from tests.support.images import ARM64


@task(task_run_name="branch")
def branch() -> str:
    return str(task_run.get_id())


@task(task_run_name="join")
def join() -> str:
    return str(task_run.get_id())


@flow
def publication() -> tuple[str, str, str]:
    before = branch()
    started = Started(ARM64, UUID(flow_run.get_id()), UUID(before))
    return before, join(wait_for=[started.done]), str(flow_run.get_id())


def test_the_join_has_the_branch_as_what_it_waited_for() -> None:
    before, after, run_id = publication()
    with get_client(sync_client=True) as client:
        found = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run_id)])))
    runs: dict[str, TaskRun] = {str(each.id): each for each in found}
    assert runs[after].task_inputs["wait_for"] == [TaskRunResult(id=UUID(before))]
