"""Explain an error: what happened, the common causes, and what to do. Works offline.

ERROR is the name that an error ends with, such as TagConflict, or an exit status, such as 18. Without it, all errors
are listed.

Exit statuses: 0 explained; 3 there is no such error.
"""

from collections.abc import Sequence

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import Arguments, command
from soci_pipeline.errors import InvalidInput
from soci_pipeline.text import did_you_mean
from soci_pipeline.troubleshooting import Entry, explained, read_entries


@command(__doc__)
@click.argument("error", required=False, metavar="[ERROR]", help="the name of an error, or an exit status")
def run(arguments: Arguments) -> CommandResult:
    """Look the error up."""
    entries = read_entries()
    if arguments.error is None:
        return CommandResult(json={"errors": [_fields(entry) for entry in entries]}, text=_table(entries))
    found = explained(arguments.error, entries)
    if not found:
        advice = did_you_mean(arguments.error.lower(), {entry.name.lower(): entry.name for entry in entries})
        raise InvalidInput(
            f"there is no error {arguments.error[:100]!r}",
            advice=advice or "`soci-pipeline explain` lists all errors.",
        )
    return CommandResult(json={"errors": [_fields(entry) for entry in found]}, text="\n\n".join(map(_text, found)))


def _fields(entry: Entry) -> dict[str, object]:
    return {"error": entry.name, "exit_code": entry.status, "summary": entry.summary, "text": entry.text}


def _text(entry: Entry) -> str:
    return f"{entry.name}{_status(entry)}: {entry.summary}\n\n{entry.text}"


def _status(entry: Entry) -> str:
    return "" if entry.status is None else f" (exit status {entry.status})"


def _table(entries: Sequence[Entry]) -> str:
    return "\n".join(f"{entry.status or '-':>3}  {entry.name:22} {entry.summary}" for entry in entries)
