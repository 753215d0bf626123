"""Receive signed webhook events and start publications in Prefect.

  webhook serve --config FILE     run the receiver until it is stopped; its log is JSON lines on standard error
  webhook check FILE EVENT        show what the configuration FILE does with an event (a JSON body in the file EVENT)

`check` verifies no signature, needs no secret and sends nothing. FILE contains the names of secrets (variables or
files); secrets are never arguments. The page Triggers of the documentation describes the file.

Exit statuses: 0 success (check: at least one rule matches); 3 the configuration or the event is not valid; 7 boto3 is
missing for a queue; 12 (serve) the AWS profile for a queue does not exist; 21 the outbox cannot be written; 22 (serve)
it cannot listen on the address, or another receiver uses the outbox; 24 (check) a valid event that starts nothing; 130
or 143 (serve) stopped by a signal, after work in progress was finished.
"""

import sys
from collections.abc import Mapping

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import FILE_PATH, Arguments, CommandGroup, help_text
from soci_pipeline.errors import ExitCode, InvalidInput
from soci_pipeline.webhook.configuration import Configuration, Source, load

_EXIT_STATUSES = "Exit statuses: see `soci-pipeline webhook --help`."

webhook = CommandGroup(help=help_text(__doc__))


@webhook.command("serve", help="run the receiver until it is stopped", epilog=_EXIT_STATUSES)
@click.option("--config", type=FILE_PATH, required=True, metavar="FILE", help="the configuration (YAML)")
def _serve(arguments: Arguments) -> CommandResult:
    configuration = load(arguments.config)
    from soci_pipeline.webhook.json_logs import log_as_json
    from soci_pipeline.webhook.service import serve

    log_as_json(sys.stderr)
    serve(configuration)
    return CommandResult()


@webhook.command("check", help="show what a configuration does with an event", epilog=_EXIT_STATUSES)
@click.argument("config", type=FILE_PATH, metavar="FILE", help="the configuration (YAML)")
@click.argument("event", type=FILE_PATH, metavar="EVENT", help="the body of an event (JSON)")
@click.option("--source", metavar="SOURCE", help="the source that sends it (default: the only one)")
@click.option("--event-header", metavar="EVENT_HEADER", help="the sender's event header (default: a push)")
def _check(arguments: Arguments) -> CommandResult:
    from soci_pipeline.webhook.errors import EventRefused
    from soci_pipeline.webhook.events import Ignored
    from soci_pipeline.webhook.rules import plan

    configuration = load(arguments.config)
    source = _source(configuration, arguments.source)
    try:
        body = arguments.event.read_bytes()
    except OSError as error:
        raise InvalidInput(f"the event {arguments.event} cannot be read: {error.strerror}") from error
    name, default = source.push_header or ("", "")
    try:
        event = source.parse({name: arguments.event_header or default}, body)
    except EventRefused as error:
        advice = error.advice or f"The file must contain the body as the source {source.name} ({source.kind}) sends it."
        raise EventRefused(f"{arguments.event}: {error.reason}", advice=advice) from error
    if isinstance(event, Ignored):
        return _nothing({"source": source.name, "ignored": event.reason, "runs": [], "skipped": {}}, event.reason)
    made = plan(configuration, source.name, event)
    answer = {
        "source": source.name,
        "event": event.model_dump(mode="json", exclude={"paths"}),
        "runs": [
            {"rule": each.rule, "deployment": each.deployment, "parameters": each.parameters} for each in made.runs
        ],
        "skipped": made.skipped,
    }
    reasons = [f"{rule}: {each.detail}" for rule, each in made.mismatches.items()]
    if not made.runs:
        return _nothing(answer, f"no rule matches ({'; '.join(reasons)})")
    lines = [f"{each.rule} -> {each.deployment}" for each in made.runs]
    for each in made.runs:
        lines += [f"  {key}: {value!r}" for key, value in each.parameters.items()]
    lines += reasons
    return CommandResult(json=answer, text="\n".join(lines))


def _nothing(answer: Mapping[str, object], reason: str) -> CommandResult:
    return CommandResult(json=answer, text=f"starts nothing: {reason}", exit_code=ExitCode.NOTHING_STARTED)


def _source(configuration: Configuration, name: str | None) -> Source:
    if name is None and len(configuration.sources) == 1:
        return configuration.sources[0]
    found = configuration.source(name or "")
    if found is None:
        known = ", ".join(each.name for each in configuration.sources)
        raise InvalidInput(
            f"no source {name!r}" if name else "several sources", advice=f"Set --source to one of {known}."
        )
    return found
