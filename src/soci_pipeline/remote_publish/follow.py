"""A publication's flow run, followed to its end: the progress of each branch, then its result or its error."""

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
    """Logs what changed since the last look: the run's state, each branch's state, and the steps of branches."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._waits: dict[str, str] = {}

    def show(self, api: PrefectApi, run: str, state: RunState) -> None:
        """Look once, and log a line for each change."""
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
        """Say why a run is not started yet; again only where the reason has changed."""
        wait = wait_of(api, state, pool) if kind == "SCHEDULED" else None
        said = f"waits: {wait.reason}\n  next: {wait.advice}" if wait else ""
        if said and self._waits.get(what) != said:
            logger().warning("  %s: %s", what, said)
        self._waits[what] = said

    def _say(self, what: str, text: str) -> None:
        if self._shown.get(what) != text:
            self._shown[what] = text
            logger().info("  %s: %s", what, text)


def platform_of(child: ChildRun) -> str:
    """The platform of a branch, by the tag that its publication gave it."""
    tags = (tag.removeprefix("platform:") for tag in child.tags if tag.startswith("platform:"))
    return next(tags, child.name)


def follow(api: PrefectApi, run: str, page: Page, *, poll: float = _POLL_SECONDS) -> PublicationResult:
    """Wait for the end of a publication, and return its result.

    Raises `RunFailed` with the run's own cause and next step, and the page of each branch that failed.
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
            f"the result of the flow run {page(run)} cannot be read: {error.error_count()} fields differ",
            advice="Bring this machine and the control worker to the same version of the project.",
        ) from error
    return result.model_copy(update={"run_url": page(run)})


def _failure(api: PrefectApi, run: str, state: RunState, page: Page) -> RunFailed:
    """The error of a run that did not complete."""
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
    """The status of the cause that a failed run names, else of the one cause that all its failed branches share.

    A branch that was started once more counts with its last run.
    """
    own = _cause_of(state.message)
    if own is not None and own is not ExitCode.BRANCH_FAILED:
        return own
    last = {platform_of(child): child for child in children}
    causes = {_cause_of(child.message) for child in last.values() if child.is_failed}
    cause = causes.pop() if len(causes) == 1 else None
    return cause or ExitCode.BRANCH_FAILED


def _cause_of(message: str) -> ExitCode | None:
    """The status of the error class that a state's message starts with."""
    found = _PREFIX.match(message.strip())
    return exit_code_of(found["error"]) if found and found["error"] else None
