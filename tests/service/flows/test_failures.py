"""How a failed run looks in Prefect: its state, its artifact, its log, its hooks, and what its caller gets."""

import logging
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact, State, StateType
from prefect.settings import PREFECT_UI_URL, temporary_settings

from flows.verify_image import verify_image
from soci_pipeline.errors import InvalidInput, SociPipelineError, SourceError
from soci_pipeline.oci.platform import Platform
from tasks.failures import BranchesFailed, FailedBranch, explained, failure, image_in
from tasks.policies import STEP
from tasks.run_log import run_log

UI = "https://prefect.example.com"
BRANCH = uuid4()
ENDED: list[str] = []


@task(**STEP)
def step(error: Exception) -> None:
    with run_log():
        raise error


def _note_end(flow: Any, flow_run: Any, state: State[Any]) -> None:
    ENDED.append(state.type.value)


@flow(name="fails-on-purpose", on_failure=[_note_end])
@explained
def failing(error: Exception) -> None:
    with run_log():
        step(error)


@flow(name="fails-once", retries=1)
@explained
def failing_once(errors: list[Exception]) -> str:
    if errors:
        raise errors.pop()
    return "done"


def ended(error: Exception) -> State[Any]:
    state: Any = failing(error, return_state=True)
    return state  # type: ignore[no-any-return]


def artifacts_of(state: State[Any]) -> list[Artifact]:
    run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(str(state.state_details.flow_run_id))]))
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=run)


def branches_failed() -> BranchesFailed:
    reason = "BuildFailed: the build of linux/arm64 failed\n  #7 ERROR: exit code: 3"
    return BranchesFailed((FailedBranch(Platform("linux", "arm64"), reason, BRANCH),))


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (SourceError("no branch `next` in https://git.example.com/app.git"), "SourceError: no branch `next` in"),
        (branches_failed(), "linux/arm64: BuildFailed: the build of linux/arm64 failed"),
    ],
)
def test_the_state_of_a_failed_run_starts_with_the_cause(error: SociPipelineError, start: str) -> None:
    state = ended(error)
    assert state.type is StateType.FAILED
    with get_client(sync_client=True) as client:
        kept = client.read_flow_run(UUID(str(state.state_details.flow_run_id))).state
    assert kept is not None
    assert (kept.type, kept.name) == (StateType.FAILED, "Failed")
    assert (kept.message or "")[:60].startswith(start[:60])
    assert (error.advice or "") in (kept.message or "")


def test_who_calls_the_flow_gets_the_error_itself_and_hooks_run() -> None:
    ENDED.clear()
    error = SourceError("there is no such branch")
    with pytest.raises(SourceError) as caught:
        failing(error)
    assert caught.value is error
    assert ENDED == ["FAILED"]


def test_a_flow_with_retries_is_tried_again() -> None:
    assert failing_once([SourceError("away")]) == "done"


def test_a_function_that_no_flow_runs_raises() -> None:
    with pytest.raises(InvalidInput):
        verify_image.fn("not a reference!")


def test_a_wrong_parameter_ends_the_run_in_a_state_that_names_it() -> None:
    state: Any = verify_image("not a reference!", return_state=True)
    assert state.message.startswith("InvalidInput: ")
    assert "reference: " in state.message


def test_a_failed_run_has_an_artifact_with_cause_next_step_and_links() -> None:
    with temporary_settings(updates={PREFECT_UI_URL: UI}):
        state = ended(branches_failed())
    (artifact,) = artifacts_of(state)
    assert artifact.key == "failed-fails-on-purpose"
    assert "BuildFailed: the build of linux/arm64 failed" in (artifact.description or "")
    said = str(artifact.data)
    assert "    linux/arm64: BuildFailed: the build of linux/arm64 failed\n" in said
    assert "### Next step" in said
    assert "Then retry this run" in said
    assert f"[run and log](<{UI}/runs/flow-run/{BRANCH}>)" in said
    assert f"[The log of this run](<{UI}/runs/flow-run/{state.state_details.flow_run_id}>)" in said


@pytest.mark.parametrize(
    ("parameters", "image"),
    [
        ({"image": "registry.example.com/shop/web"}, "registry.example.com/shop/web"),
        ({"reference": "registry.example.com/shop/web:v1"}, "registry.example.com/shop/web:v1"),
        ({"image": "not a name!"}, None),
        ({"image": ["a"]}, None),
        ({}, None),
    ],
)
def test_the_failures_of_each_image_have_a_history_of_their_own(parameters: dict[str, Any], image: str | None) -> None:
    found = image_in(parameters)
    assert (None if found is None else str(found)) == image


def test_an_unexpected_error_has_an_artifact_too_without_its_text() -> None:
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError("password=opensesame"))
    said = failure("publish-image", uuid4(), ZeroDivisionError("password=opensesame"))
    assert "ZeroDivisionError" in said
    assert "opensesame" not in said
    keys = [artifact.key for artifact in artifacts_of(ended(ZeroDivisionError("a defect"))) if artifact.key]
    assert keys == ["failed-fails-on-purpose"]


def test_the_words_of_an_error_are_no_markup_in_its_artifact() -> None:
    said = failure("publish-image", uuid4(), SourceError("```\n## [x](http://x.example)\n\x1b[31m", advice="<b>do</b>"))
    assert "\n##  [x]" not in said
    assert "\n    ## [x](http://x.example)\n" in said
    assert "\n    <b>do</b>\n" in said
    assert said.count("<b>") == 1
    assert "\x1b" not in said


@pytest.mark.parametrize(
    "error",
    [
        SourceError("no such branch\n  of this", advice="Push it first."),
        branches_failed(),
        InvalidInput("image: has a tag"),
        InvalidInput('it\'s "C:\\x", which is no image'),
    ],
)
def test_an_expected_error_is_logged_once(error: SociPipelineError, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        caplog.set_level(logging.INFO, name)
    with pytest.raises(type(error)):
        failing(error)
    said = caplog.text
    assert said.count(error.reason.partition("\n")[0]) == 1
    assert said.count(error.advice or "Failed with") == 1
    assert "unexpected exception" not in said
    assert "Finished in state Failed" not in said
    assert "Traceback" not in said
