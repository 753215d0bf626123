"""Make in Prefect what the deployments need: work pools, automations and block types. Can be run again.

Talks to the server that PREFECT_API_URL or the active Prefect profile names; run it from a checkout of the project.
Afterwards `prefect --no-prompt deploy --all` deploys the flows.

With --worker-python flow runs begin seconds sooner: Prefect need not start a process that looks for the Python first.

Exit statuses: 0 everything is there; 3 a path, a block or an address of Prefect that cannot be meant; 8 Prefect refused
something; 12 it wants a login, or another one; 22 it does not answer, or this is no checkout of the project.
"""

import os
from pathlib import Path

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import Arguments, command
from soci_pipeline.errors import InvalidInput
from soci_pipeline.log import logger
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.profiles import active_profile, check_access
from soci_pipeline.prefect_setup.install import install
from soci_pipeline.prefect_setup.pools import NO_PYTHON
from soci_pipeline.project import project_folder

_PATIENCE_S = 60.0
_LABELS = {
    "work_pools": "work pool",
    "limits": "limit",
    "commands": "python",
    "automations": "automation",
    "blocks": "block",
    "deployments": "deployment",
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
    block, python = _block(arguments.notify_block), _absolute(arguments.worker_python)
    deployments = project_folder() / "deployments"
    environment = active_profile(os.environ) | dict(os.environ)
    check_access(environment)
    with PrefectApi.from_environment(environment, patience_s=_PATIENCE_S) as api:
        notes = install(api, deployments, notify_block=block, worker_python=python)
    report: dict[str, dict[str, str]] = {}
    for note in notes:
        report.setdefault(note.kind, {})[note.name] = note.result
    lines = [f"{_LABELS[kind]} {name}: {what}" for kind, names in report.items() for name, what in names.items()]
    return CommandResult(json=report, text="\n".join(lines))


def _block(name: str | None) -> str | None:
    if name is None:
        return None
    kind, _, own = name.partition("/")
    if not kind or not own or "/" in own:
        raise InvalidInput(
            f"--notify-block {name!r} is not of the form TYPE/NAME",
            advice="Give type and name, as in slack-webhook/releases; `prefect block ls` lists the blocks.",
        )
    return name


def _absolute(path: str | None) -> str | None:
    # It need not be on this machine; a relative one would be looked for in each run's own folder.
    if not path or path == NO_PYTHON:
        return path or None
    if not Path(path).is_absolute():
        raise InvalidInput(
            f"--worker-python {path} is not absolute", advice="Give the path that it has on the workers."
        )
    if not os.access(path, os.X_OK):
        logger().warning("%s cannot be run on this machine; where a worker lacks it too, its runs crash", path)
    return path
