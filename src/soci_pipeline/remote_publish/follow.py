"""Follow the flow run of a publication to its end: the progress of each branch, then its result or its error."""

import re
import time
from collections.abc import Callable, Sequence

from pydantic import ValidationError

from soci_pipeline.errors import BranchFailed, ExitCode, StackError, exit_code_of
from soci_pipeline.log import logger
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.runs import ChildRun, RunState
from soci_pipeline.publish.records import PublicationResult
from soci_pipeline.remote_publish.waiting import wait_of

Page = Callable[[str], str]
"""The page of a flow run in Prefect's UI, by its id."""

_POLL_SECONDS = 2.0
_PERCENT = 10
_PREFIX = re.compile(r"\A(?:Flow run encountered an exception: )?(?:(?P<error>[A-Z][A-Za-z]+): )?")


class RunFailed(BranchFailed):
    """The flow run failed on other machines; its exit status is that of the cause."""

    def __init__(self, reason: str, *, advice: str, exit_code: ExitCode, links: Sequence[str] = ()) -> None:
        super().__init__(reason, advice=advice)
        self.exit_code = exit_code
        self.links = tuple(links)


class RunProgress:
    """Log what changed since the last poll: the run's state, each branch's state, and the steps of branches."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._waits: dict[str, str] = {}

    def show(self, api: PrefectApi, run: str, state: RunState) -> None:
        """Poll once, and log a line for each change."""
        self._say("publication", state.kind.lower())
        self._explain(api, "publication", state.kind, state.name, state.pool)
        children = api.child_runs(run)
        for child in children:
            self._say(platform_of(child), child.state.lower())
            self._explain(api, platform_of(child), child.kind, child.state, child.pool)
        working = [child.id for child in children if child.kind == "RUNNING"]
        for step, percent in sorted(api.progress(working).items()):
            self._say(step.lower(), f"{percent // _PERCENT * _PERCENT} %")

    def _explain(self, api: PrefectApi, what: str, kind: str, state: str, pool: str) -> None:
        """Log why a run has not started yet; repeat only if the reason has changed."""
        wait = wait_of(api, state, pool) if kind == "SCHEDULED" else None
        said = f"waiting: {wait.reason}\n  next: {wait.advice}" if wait else ""
        if said and self._waits.get(what) != said:
            logger().warning("  %s: %s", what, said)
        self._waits[what] = said

    def _say(self, what: str, text: str) -> None:
        if self._shown.get(what) != text:
            self._shown[what] = text
            logger().info("  %s: %s", what, text)


def platform_of(child: ChildRun) -> str:
    """Return the platform of a branch from the tag that its publication set."""
    tags = (tag.removeprefix("platform:") for tag in child.tags if tag.startswith("platform:"))
    return next(tags, child.name)


def follow(api: PrefectApi, run: str, page: Page, *, poll: float = _POLL_SECONDS) -> PublicationResult:
    """Wait for the end of a publication, and return its result.

    Raises `RunFailed` with the run's own cause and next step, and the page of each failed branch.
    """
    progress = RunProgress()
    while True:
        state = api.state(run)
        progress.show(api, run, state)
        if state.is_final:
            break
        time.sleep(poll)
    if not state.is_completed:
        raise _failure(api, run, state, page)
    text = api.result(run)
    if text is None:
        raise StackError(
            f"the flow run completed without a record of its result: {page(run)}",
            advice="Update the worker of the control pool to this version of the project; the image is published.",
        )
    try:
        result = PublicationResult.model_validate_json(text)
    except ValidationError as error:
        raise StackError(
            f"the result of the flow run {page(run)} has {error.error_count()} unexpected fields",
            advice="Update this machine and the control worker to the same version of the project.",
        ) from error
    return result.model_copy(update={"run_url": page(run)})


def _failure(api: PrefectApi, run: str, state: RunState, page: Page) -> RunFailed:
    """Return the error of a run that did not complete."""
    message = _PREFIX.sub("", state.message.strip(), count=1)
    reason, _, advice = message.partition("\n  next: ")
    children = api.child_runs(run)
    failed = [child for child in children if child.is_failed]
    pages = [f"{platform_of(child)}: {page(child.id)}" for child in failed] or [f"flow run: {page(run)}"]
    said = reason or f"the flow run ended as {state.kind.lower()} without a message"
    return RunFailed(
        said,
        advice=advice.strip() or "Read the log of the flow run.",
        exit_code=exit_code_of_run(state, children),
        links=[f"  {each}" for each in pages],
    )


def exit_code_of_run(state: RunState, children: Sequence[ChildRun]) -> ExitCode:
    """Return the exit status of the cause of a failed run, or of the cause that all its failed branches share.

    For a branch that was restarted, its last run counts.
    """
    own = _cause_of(state.message)
    if own is not None and own is not ExitCode.BRANCH_FAILED:
        return own
    last = {platform_of(child): child for child in children}
    causes = {_cause_of(child.message) for child in last.values() if child.is_failed}
    cause = causes.pop() if len(causes) == 1 else None
    return cause or ExitCode.BRANCH_FAILED


def _cause_of(message: str) -> ExitCode | None:
    """Return the exit status of the error class at the start of a state's message."""
    found = _PREFIX.match(message.strip())
    return exit_code_of(found["error"]) if found and found["error"] else None
