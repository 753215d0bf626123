"""Create in Prefect what the deployments need: work pools, automations and block types. It can be run again.

It uses the server in PREFECT_API_URL or the active Prefect profile; run it from a checkout of the project. Then deploy
the flows with `prefect --no-prompt deploy --all`. With --worker-python, flow runs start seconds sooner, because Prefect
does not start a process that searches for Python first. With --publications, it creates or updates one deployment for
each publication in a file instead, and keeps changes from Prefect's UI where the file did not change. The documentation
describes the file.

Exit statuses: 0 everything is set up; 3 a path, file, block or URL of Prefect is not valid; 8 Prefect rejected a
change; 12 it requires a login, or another one; 22 it does not answer, or this is not a checkout of the project; 25 a
publication was changed both in the file and on the server, and was not updated.
"""

import os
from pathlib import Path

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import FILE_PATH, Arguments, command
from soci_pipeline.errors import ExitCode, InvalidInput
from soci_pipeline.log import logger
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.prefect_rest.profiles import active_profile, check_access
from soci_pipeline.prefect_setup.install import install
from soci_pipeline.prefect_setup.pools import NO_PYTHON
from soci_pipeline.prefect_setup.three_way import OnConflict
from soci_pipeline.project import project_folder

_TIMEOUT_S = 60.0
_ADVICE = "  next: make the file and the server agree, or choose one: `--on-conflict file` or `--on-conflict server`"
_NEXT = (
    "  next: create the deployments with `prefect --no-prompt deploy --all`, then start a worker for each pool: "
    "`prefect worker start --pool soci-control`, and on a machine of each architecture `--pool soci-amd64` or "
    "`--pool soci-arm64`"
)
_STARTED = (
    "  next: start one with `prefect deployment run publish-image/NAME`; its work pool requires a worker: "
    "`prefect worker start --pool POOL`"
)
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
    help="send failed publications to this notification block (for example slack-webhook/releases)",
)
@click.option(
    "--worker-python",
    metavar="PATH",
    help="the project's Python, if its path is the same on every worker (.venv/bin/python of the clone); `none` lets "
    "each worker find its own",
)
@click.option(
    "--publications", type=FILE_PATH, metavar="FILE", help="create the deployments in this file (YAML) instead"
)
@click.option("--check", is_flag=True, help="with --publications: check the file only, without a Prefect server")
@click.option("--dry-run", is_flag=True, help="with --publications: show what would change, and change nothing")
@click.option("--remove", is_flag=True, help="with --publications: delete deployments that are no longer in the file")
@click.option(
    "--on-conflict",
    type=click.Choice([str(each) for each in OnConflict]),
    help="with --publications: which side wins if both changed a value; by default (stop) such "
    "a deployment is not changed and the exit status is 25",
)
def run(arguments: Arguments) -> CommandResult:
    if arguments.publications is not None:
        return _publications(arguments)
    for name in ("check", "dry_run", "remove", "on_conflict"):
        if getattr(arguments, name):
            raise InvalidInput(
                f"--{name.replace('_', '-')} requires --publications",
                advice="Add --publications FILE, or omit the option.",
            )
    block, python = _block(arguments.notify_block), _absolute(arguments.worker_python)
    deployments = project_folder() / "deployments"
    with _prefect() as api:
        notes = install(api, deployments, notify_block=block, worker_python=python)
    report: dict[str, dict[str, str]] = {}
    for note in notes:
        report.setdefault(note.kind, {})[note.name] = note.result
    lines = [f"{_LABELS[kind]} {name}: {what}" for kind, names in report.items() for name, what in names.items()]
    return CommandResult(json=report, text="\n".join([*lines, _NEXT]))


def _prefect() -> PrefectApi:
    environment = active_profile(os.environ) | dict(os.environ)
    check_access(environment)
    return PrefectApi.from_environment(environment, deadline_s=_TIMEOUT_S)


def _publications(arguments: Arguments) -> CommandResult:
    for name in ("notify_block", "worker_python"):
        if getattr(arguments, name) is not None:
            raise InvalidInput(
                f"--{name.replace('_', '-')} cannot be combined with --publications",
                advice="Run `soci-pipeline setup` for each of them.",
            )
    # Pydantic's models take a while to import, and the rest of the set-up does not need them.
    from soci_pipeline.prefect_setup.publication_plan import Action
    from soci_pipeline.prefect_setup.publications import apply, lines, read_plan, report
    from soci_pipeline.publications.file import load
    from soci_pipeline.webhook.publication_rules import check_rules

    file = load(arguments.publications)
    check_rules(file)
    if arguments.check:
        return _checked(arguments, [each.name for each in file.content.publications])
    project, prefer = project_folder(), OnConflict(arguments.on_conflict or OnConflict.STOP)
    with _prefect() as api:
        planned = read_plan(api, project, file, remove=arguments.remove, prefer=prefer)
        if not arguments.dry_run:
            apply(api, planned)
    actions = {each.action for each in planned.deployments}
    stopped = Action.STOP in actions
    text = list(lines(planned, dry_run=arguments.dry_run))
    if stopped:
        text.append(_ADVICE)
    elif Action.MAKE in actions and not arguments.dry_run:
        text.append(_STARTED)
    return CommandResult(
        json=report(planned, dry_run=arguments.dry_run),
        text="\n".join(text),
        exit_code=ExitCode.CONFLICT if stopped else ExitCode.OK,
    )


def _checked(arguments: Arguments, names: list[str]) -> CommandResult:
    for name in ("dry_run", "remove", "on_conflict"):
        if getattr(arguments, name):
            raise InvalidInput(
                f"--check cannot be combined with --{name.replace('_', '-')}", advice="Omit one of the two options."
            )
    text = f"OK: {arguments.publications} is valid: {', '.join(names)}"
    return CommandResult(json={"file": str(arguments.publications), "publications": names}, text=text)


def _block(name: str | None) -> str | None:
    if name is None:
        return None
    kind, _, own = name.partition("/")
    if not kind or not own or "/" in own:
        raise InvalidInput(
            f"--notify-block {name!r} must have the form TYPE/NAME",
            advice="Use type and name, for example slack-webhook/releases; `prefect block ls` lists the blocks.",
        )
    return name


def _absolute(path: str | None) -> str | None:
    # It need not exist on this machine; a relative path would be resolved in each run's own folder.
    if not path or path == NO_PYTHON:
        return path or None
    if not Path(path).is_absolute():
        raise InvalidInput(f"--worker-python {path} is not an absolute path", advice="Use its path on the workers.")
    if not os.access(path, os.X_OK):
        logger().warning("%s cannot run on this machine; on a worker without it, runs crash", path)
    return path
