"""Make in Prefect what the deployments need: work pools, automations and block types. Can be run again.

Talks to the server that PREFECT_API_URL or the active Prefect profile names; run it from a checkout of the project.
Afterwards `prefect --no-prompt deploy --all` deploys the flows.

With --worker-python flow runs begin seconds sooner: Prefect need not start a process that looks for the Python first.

Exit statuses: 0 everything is there; 3 a path, a block or an address of Prefect that cannot be meant; 8 Prefect refused
something; 12 it wants a login, or another one; 22 it does not answer, or this is no checkout of the project.
"""

import json
import os
import sys
from pathlib import Path

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import Arguments, command
from soci_pipeline.errors import CredentialsRefused, InvalidInput, SociPipelineError, StackError, ToolFailed
from soci_pipeline.log import logger
from soci_pipeline.machine import programs
from soci_pipeline.project import project_folder

_SECONDS = 180.0
_REFUSALS = {int(each.exit_code): each for each in (InvalidInput, CredentialsRefused, StackError)}
_LABELS = {
    "work_pools": "work pool",
    "limits": "limit",
    "commands": "python",
    "automations": "automation",
    "blocks": "block",
}


@command(__doc__)
@click.option(
    "--notify-block",
    metavar="TYPE/NAME",
    help="tell this notification block (for example slack-webhook/releases) when a publication fails",
)
@click.option(
    "--worker-python",
    metavar="PATH",
    help="the project's Python, where it has the same path on every worker (.venv/bin/python of the clone); "
    "`none` lets each worker look for its own again",
)
def run(arguments: Arguments) -> CommandResult:
    argv = [sys.executable, "-m", "deployments.install"]
    if arguments.notify_block is not None:
        argv += ["--notify-block", _block(arguments.notify_block)]
    if arguments.worker_python:
        argv += ["--worker-python", _absolute(arguments.worker_python)]
    # Prefect is imported in a process of its own: the library and its command do without it.
    environment = dict(os.environ) | {"PREFECT_SERVER_EPHEMERAL_ENABLED": "false"}
    try:
        answer = programs.run(argv, cwd=project_folder(), env=environment, timeout=_SECONDS)
    except ToolFailed as error:
        refusal = _refusal(error.reason)
        if refusal is not None:
            raise refusal from error
        raise ToolFailed(
            f"Prefect could not be set up: {_last_words(error.reason)}",
            advice="Check that PREFECT_API_URL names a server that answers, and that the extra `prefect` is installed.",
        ) from error
    report = json.loads(answer.stdout)
    lines = [
        f"{_LABELS.get(kind, kind)} {name}: {what}" for kind, names in report.items() for name, what in names.items()
    ]
    return CommandResult(json=report, text="\n".join(lines))


def _block(name: str) -> str:
    kind, _, own = name.partition("/")
    if not kind or not own or "/" in own:
        raise InvalidInput(
            f"--notify-block {name!r} is not of the form TYPE/NAME",
            advice="Give type and name, as in slack-webhook/releases; `prefect block ls` lists the blocks.",
        )
    return name


def _absolute(path: str) -> str:
    # It need not be on this machine; a relative one would be looked for in each run's own folder.
    if path == "none":
        return path
    if not Path(path).is_absolute():
        raise InvalidInput(
            f"--worker-python {path} is not absolute", advice="Give the path that it has on the workers."
        )
    if not os.access(path, os.X_OK):
        logger().warning("%s cannot be run on this machine; where a worker lacks it too, its runs crash", path)
    return path


def _refusal(reason: str) -> SociPipelineError | None:
    """What `deployments.install` refused before it changed anything: it says so in a line of JSON."""
    for line in reversed(reason.splitlines()):
        if line.startswith('{"refused": '):
            said = json.loads(line)
            return _REFUSALS[said["refused"]](said["reason"], advice=said["advice"])
    return None


def _last_words(reason: str) -> str:
    """What went wrong, without the way there: the last line of a traceback, even where its beginning is cut off."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return lines[-1] if any(line.startswith(("Traceback ", 'File "')) for line in lines) else reason
