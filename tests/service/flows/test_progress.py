"""Progress artifacts in a real server: they appear, move at a bounded rate, and end at the end."""

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterType, FlowRunFilter, FlowRunFilterId
from prefect.runtime import flow_run

from tasks.progress import Progress, StepLog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(run_id: str) -> list[Any]:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(type=ArtifactFilterType(any_=["progress"])),
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run_id)])),
        )
    return [artifact.data for artifact in found]


def in_a_run(work: Callable[[str], list[Any]]) -> list[Any]:
    @flow
    def watched() -> list[Any]:
        return work(str(flow_run.get_id()))

    return watched()


def test_progress_is_shown_at_most_every_two_seconds_and_at_the_end() -> None:
    clock = Clock()

    def work(run_id: str) -> list[Any]:
        progress, seen = Progress("Upload of linux/arm64", clock=clock), []
        for moment, done in ((0.0, 0), (0.1, 10), (1.9, 20), (2.1, 30), (2.2, 100)):
            clock.now = moment
            progress.report(done, 100)
            seen += shown(run_id)
        return seen

    assert in_a_run(work) == [0.0, 0.0, 0.0, 30.0, 100.0]


def test_progress_never_goes_back() -> None:
    clock = Clock()

    def work(run_id: str) -> list[Any]:
        progress = Progress("Build of linux/arm64", clock=clock)
        for moment, done, total in ((0.0, 1, 2), (9.0, 1, 5), (18.0, 4, 5)):
            clock.now = moment
            progress.report(done, total)
        return shown(run_id)

    assert in_a_run(work) == [80.0]


def test_a_build_that_prints_its_steps_moves_the_bar_and_every_line_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = ["#5 [1/2] FROM scratch", "#5 DONE 0.0s", "#6 [2/2] COPY a /a", "#6 0.1 copying", "#6 DONE 0.1s"]

    def work(run_id: str) -> list[Any]:
        log = StepLog(logging.getLogger("soci_pipeline"), Progress("Build of linux/arm64"))
        for line in lines:
            log.info("%s", line)
        return shown(run_id)

    with caplog.at_level(logging.INFO, "soci_pipeline"):
        assert in_a_run(work) == [100.0]
    assert [line for line in lines if line not in caplog.messages] == []


def test_a_step_that_never_reports_leaves_no_artifact() -> None:
    def work(run_id: str) -> list[Any]:
        Progress("Build of linux/arm64")
        return shown(run_id)

    assert in_a_run(work) == []
