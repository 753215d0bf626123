"""How an expected error ends a flow: a state whose message starts with the cause, and an artifact that explains it.

Prefect makes the state of an exception itself, and its message then starts with "Flow run encountered an exception".
A flow that returns a failed state ends in that one: retries, hooks and what the caller gets (the error, which is the
state's data) stay the same.
"""

import contextlib
import functools
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext
from prefect.states import Failed

from soci_pipeline.errors import BranchFailed, InvalidInput, SociPipelineError
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_rest.errors import PrefectRefused, PrefectUnavailable
from soci_pipeline.publish.request import BranchRequest
from soci_pipeline.registry.reference import ImageReference
from tasks.artifacts import key_of, make_artifact
from tasks.markdown import code, link, table, text
from tasks.outage import ERRORS
from tasks.run_log import run_log
from tasks.ui_links import run_page

# Of a line in a block, in characters: more of them do not fit the page of an artifact, 1440 pixels wide.
_WIDTH = 78
_MOST_LINES = 200

P = ParamSpec("P")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class FailedBranch:
    """A branch that failed, why, and the flow run that has its log."""

    platform: Platform
    reason: str
    run_id: UUID


class BranchesFailed(BranchFailed):
    """The branches that kept a publication from being made; each one's own cause comes first."""

    def __init__(self, branches: tuple[FailedBranch, ...]) -> None:
        lines = [f"{branch.platform}: {branch.reason}" for branch in branches]
        super().__init__(
            "\n".join([*lines, "Nothing was published."]),
            advice="Fix what each names; its flow run has its whole log. Then retry this run, which starts only these "
            "branches anew, or publish again; both reuse what is in the registry.",
        )
        self.branches = branches


def explained(function: Callable[P, Answer]) -> Callable[P, Answer]:
    """Let a flow end in a failed state that says why, instead of raising an expected error.

    It raises where it is called alone, and where the flow has retries: Prefect before 3.9 tries a flow again only then.
    """

    @functools.wraps(function)
    def ending_in_a_state(*positional: P.args, **named: P.kwargs) -> Answer:
        context = FlowRunContext.get()
        if context is None:
            return function(*positional, **named)
        try:
            with run_log():
                return function(*positional, **named)
        except SociPipelineError as error:
            show_failure(error)
            if context.flow is not None and context.flow.retries:
                raise
            # What a flow returns as a state becomes its state; the caller of the flow gets the state's data, raised.
            return cast("Answer", Failed(message=message_of(error), data=error))
        except Exception as error:
            show_failure(error)
            raise

    return ending_in_a_state


def message_of(error: SociPipelineError) -> str:
    """What the state of a failed run says: the cause, then the next step."""
    return str(error) if isinstance(error, BranchFailed) else f"{type(error).__name__}: {error}"


def show_failure(error: Exception) -> None:
    """Make the artifact of a failed run; none where Prefect's server itself is the cause."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or isinstance(error, (*ERRORS, PrefectRefused, PrefectUnavailable)):
        return
    flow = context.flow.name if context.flow else "flow"
    image = image_in(context.parameters or {})
    with run_log():
        make_artifact(
            create_markdown_artifact,
            markdown=failure(context.flow_run.name, context.flow_run.id, error),
            key=f"failed-{flow}" if image is None else key_of(f"failed-{flow}", image),
            description=text(_cause(error).partition("\n")[0]),
        )


def image_in(parameters: Mapping[str, Any]) -> ImageReference | None:
    """The image that a flow was to work on; the parameters are not checked yet, so there may be none."""
    branch = parameters.get("branch")
    if isinstance(branch, BranchRequest):
        return branch.image
    given = parameters.get("image") or parameters.get("reference")
    with contextlib.suppress(InvalidInput):
        return ImageReference.parse(given) if isinstance(given, str) else None
    return None


def failure(run: str, run_id: UUID, error: Exception) -> str:
    """The page on a failed run: cause, next step, and where the logs are; ``run`` is its name."""
    lines = [
        f"## {text(run)} failed",
        "",
        *_block(_cause(error)),
        "",
        "### Next step",
        "",
        *_block(_advice(error)),
        "",
    ]
    if isinstance(error, BranchesFailed):
        rows = [
            [
                text(branch.platform),
                text(branch.reason.partition("\n")[0][:_WIDTH]),
                link("run and log", run_page(branch.run_id)) if run_page(branch.run_id) else code(branch.run_id),
            ]
            for branch in error.branches
        ]
        lines += ["### Failed branches", "", *table(["Platform", "Cause", "Flow run"], rows), ""]
    page = run_page(run_id)
    lines += ["### Log", "", link("The log of this run", page) if page else f"Flow run {code(run_id)}"]
    return "\n".join(lines) + "\n"


def _cause(error: Exception) -> str:
    if isinstance(error, BranchFailed):
        return error.reason
    if isinstance(error, SociPipelineError):
        return f"{type(error).__name__}: {error.reason}"
    # What an unexpected error says may hold anything; the log has it.
    return f"{type(error).__name__}, which is not expected here: a defect, or something that the pipeline does not know"


def _advice(error: Exception) -> str:
    if isinstance(error, SociPipelineError):
        return error.advice or "Fix the cause, then publish again; what is in the registry already is reused."
    return "Read the traceback in the log of this run, and report it with that log."


def _block(said: str) -> list[str]:
    """A text as it is, in lines that fit the page; whatever is in it does not end the block."""
    lines = [part for line in said.splitlines() for part in textwrap.wrap(line, _WIDTH, tabsize=4) or [""]]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"… and {len(lines) - _MOST_LINES} more lines, in the log"]
    # An indented block: no run of backticks can end it.
    return [f"    {''.join(c if c.isprintable() else ' ' for c in line)}" for line in lines]
