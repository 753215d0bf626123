"""The output of `publish`: a plan or a result, as JSON and as a table."""

from soci_pipeline.commands import CommandResult
from soci_pipeline.publish.dry_run import Plan
from soci_pipeline.publish.records import PublicationResult
from soci_pipeline.publish.result_table import result_lines


def published(result: PublicationResult) -> CommandResult:
    """Return the answer for a finished publication."""
    return CommandResult(json=result.as_json(), text="\n".join(result_lines(result)))


def planned(plan: Plan) -> CommandResult:
    """Return the answer for ``--dry-run``."""
    return CommandResult(json=plan.as_json(), text="\n".join(plan.lines()))
