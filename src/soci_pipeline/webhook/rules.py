"""From an event to the runs that it starts: filters, parameters, validation. Pure; nothing is stored or sent here."""

from dataclasses import dataclass
from typing import Any

from soci_pipeline.errors import InvalidInput
from soci_pipeline.webhook.configuration import Configuration, Rule
from soci_pipeline.webhook.errors import EventRefused
from soci_pipeline.webhook.events import Event, ImageEvent, PushEvent
from soci_pipeline.webhook.flow_parameters import check
from soci_pipeline.webhook.templates import fill


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a deployment that an event asks for. ``subject`` is what a newer event supersedes, or None."""

    rule: str
    deployment: str
    parameters: dict[str, Any]
    subject: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs, and for each rule that does not fit the reason."""

    runs: tuple[PlannedRun, ...]
    skipped: dict[str, str]


def plan(configuration: Configuration, source: str, event: Event) -> Plan:
    """What the rules make of an event; raises `EventRefused` where a rule fits and its parameters do not."""
    runs: list[PlannedRun] = []
    skipped: dict[str, str] = {}
    for rule in configuration.rules:
        reason = _why_not(rule, source, event)
        if reason is None:
            runs.append(_run(rule, event))
        else:
            skipped[rule.name] = reason
    return Plan(tuple(runs), skipped)


def _why_not(rule: Rule, source: str, event: Event) -> str | None:
    if source not in rule.sources:
        return "another source"
    if rule.on != event.kind:
        return f"not {'a push' if rule.on == 'push' else 'a pushed image'}"
    if not rule.repositories.fit(event.repository):
        return "another repository"
    if isinstance(event, ImageEvent):
        return None if rule.tags.fit(event.tag) else "another tag"
    return _why_not_push(rule, event)


def _why_not_push(rule: Rule, event: PushEvent) -> str | None:
    if event.branch is not None and not rule.branches.fit(event.branch):
        return "another branch"
    if event.tag is not None and not rule.tags.fit(event.tag):
        return "another tag"
    # Where the sender does not say what changed, a build too many is better than one too few.
    if rule.paths and event.paths is not None and not any(rule.paths.fit(path) for path in event.paths):
        return "no such path changed"
    return None


def _run(rule: Rule, event: Event) -> PlannedRun:
    parameters = fill(rule.parameters, event.fields)
    try:
        check(rule.deployment, parameters)
    except InvalidInput as error:
        raise EventRefused(
            f"rule {rule.name}: the parameters for {rule.deployment} are not valid: {error.reason}",
            advice="Mend the rule's parameters in the configuration; `soci-pipeline webhook check` tries them.",
        ) from error
    subject = f"{rule.name} {event.subject}" if rule.supersede else None
    return PlannedRun(rule.name, rule.deployment, parameters, subject)
