"""End a flow that raises an expected error: a state whose message starts with the cause, and an artifact with details.

Prefect derives the state from an exception itself, and its message then starts with "Flow run encountered an
exception". A flow that returns a failed state ends in that state; retries, hooks and what the caller gets (the error,
which is the state's data) stay the same.
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

# Characters per line in a block; more do not fit an artifact's page at a width of 1440 pixels.
_WIDTH = 78
_MOST_LINES = 200

P = ParamSpec("P")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class FailedBranch:
    """A branch that failed, its reason, and the flow run with its log."""

    platform: Platform
    reason: str
    run_id: UUID


class BranchesFailed(BranchFailed):
    """The branches that prevented a publication, each with its own cause first."""

    def __init__(self, branches: tuple[FailedBranch, ...]) -> None:
        lines = [f"{branch.platform}: {branch.reason}" for branch in branches]
        super().__init__(
            "\n".join([*lines, "Nothing was published."]),
            advice="Fix what each names; its flow run has its whole log. Then retry this run, which starts only these "
            "branches anew, or publish again; both reuse what is in the registry.",
        )
        self.branches = branches


def explained(function: Callable[P, Answer]) -> Callable[P, Answer]:
    """Make a flow end in a failed state with the cause, instead of raising an expected error.

    It raises if called outside a flow run, and if the flow has retries: Prefect before 3.9 retries a flow only then.
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
            # A state returned by a flow becomes its state; the caller of the flow receives the state's data as an
            # exception.
            return cast("Answer", Failed(message=message_of(error), data=error))
        except Exception as error:
            show_failure(error)
            raise

    return ending_in_a_state


def message_of(error: SociPipelineError) -> str:
    """Return the message of a failed run's state: the cause, then the next step."""
    return str(error) if isinstance(error, BranchFailed) else f"{type(error).__name__}: {error}"


def show_failure(error: Exception) -> None:
    """Create the artifact of a failed run; none if Prefect's server itself is the cause."""
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
    """Return the image that a flow works on, or None: the parameters are not validated yet."""
    branch = parameters.get("branch")
    if isinstance(branch, BranchRequest):
        return branch.image
    given = parameters.get("image") or parameters.get("reference")
    with contextlib.suppress(InvalidInput):
        return ImageReference.parse(given) if isinstance(given, str) else None
    return None


def failure(run: str, run_id: UUID, error: Exception) -> str:
    """Return the page for a failed run: cause, next step and links to the logs; ``run`` is its name."""
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
    # The message of an unexpected error may contain anything; it is in the log.
    return (
        f"{type(error).__name__}, which is unexpected here: a defect, or a situation that the pipeline does not support"
    )


def _advice(error: Exception) -> str:
    if isinstance(error, SociPipelineError):
        return error.advice or "Fix the cause, then publish again; content that is already in the registry is reused."
    return "Read the traceback in the log of this run, and report it with that log."


def _block(said: str) -> list[str]:
    """Format a string as lines that fit the page; no content can end the block."""
    lines = [part for line in said.splitlines() for part in textwrap.wrap(line, _WIDTH, tabsize=4) or [""]]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"… and {len(lines) - _MOST_LINES} more lines, in the log"]
    # An indented block, because no run of backticks can end it.
    return [f"    {''.join(c if c.isprintable() else ' ' for c in line)}" for line in lines]
