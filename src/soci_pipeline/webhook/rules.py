"""Plan the runs that an event starts: match rules, fill parameters, validate. Has no side effects."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from soci_pipeline.errors import InvalidInput
from soci_pipeline.hosts import is_loopback
from soci_pipeline.webhook.configuration import Configuration
from soci_pipeline.webhook.errors import EventRefused
from soci_pipeline.webhook.events import Event, ImageEvent, PushEvent
from soci_pipeline.webhook.flow_parameters import check
from soci_pipeline.webhook.globs import Patterns
from soci_pipeline.webhook.rule import Rule
from soci_pipeline.webhook.templates import fill

_KINDS = {"push": "a push", "image": "a pushed image"}
_LONGEST = 100


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run that an event starts. It supersedes pending runs with the same ``subject``, unless that is None."""

    rule: str
    deployment: str
    parameters: dict[str, Any]
    subject: str | None


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why a rule does not match. ``reason`` may be sent to the sender; ``detail`` also shows the rule's patterns."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The planned runs, and the mismatch of each rule that does not match."""

    runs: tuple[PlannedRun, ...]
    mismatches: dict[str, Mismatch]

    @property
    def skipped(self) -> dict[str, str]:
        """The reason for each rule that does not match; reveals nothing of the configuration but rule names."""
        return {rule: each.reason for rule, each in self.mismatches.items()}


def plan(configuration: Configuration, source: str, event: Event) -> Plan:
    """Match an event with all rules; raise `EventRefused` for a disallowed loopback host or invalid run parameters."""
    if is_loopback(event.host) and not configuration.allow_loopback_hosts:
        raise EventRefused(
            f"the event names the loopback host {event.host}",
            advice="Set `allow_loopback_hosts: true` in the configuration if the sender is on the worker's machine.",
        )
    runs: list[PlannedRun] = []
    mismatches: dict[str, Mismatch] = {}
    for rule in configuration.rules:
        mismatch = _why_not(rule, source, event)
        if mismatch is None:
            runs.append(_run(rule, event))
        else:
            mismatches[rule.name] = mismatch
    return Plan(tuple(runs), mismatches)


def mismatch_reasons(configuration: Configuration, source: str, event: Event) -> dict[str, str] | None:
    """Return the mismatch reason of each rule if no rule matches an event, else None."""
    found = {rule.name: _why_not(rule, source, event) for rule in configuration.rules}
    reasons = {name: each.reason for name, each in found.items() if each is not None}
    return reasons if len(reasons) == len(found) else None


def _why_not(rule: Rule, source: str, event: Event) -> Mismatch | None:
    if source not in rule.sources:
        return _another("source", source, _listed(rule.sources))
    if rule.on != event.kind:
        reason = f"not {_KINDS[rule.on]}"
        return Mismatch(reason, f"the event is {_KINDS[event.kind]}; allowed: {_KINDS[rule.on]}")
    if not rule.repositories.matches(event.repository):
        return _another("repository", event.repository, _wanted(rule.repositories))
    if isinstance(event, ImageEvent):
        return None if rule.tags.matches(event.tag) else _another("tag", event.tag, _wanted(rule.tags))
    return _why_not_push(rule, event)


def _why_not_push(rule: Rule, event: PushEvent) -> Mismatch | None:
    if event.branch is not None and not rule.branches.matches(event.branch):
        return _another("branch", event.branch, _wanted(rule.branches))
    if event.tag is not None and not rule.tags.matches(event.tag):
        return _another("tag", event.tag, _wanted(rule.tags))
    # If the sender does not say which paths changed, match: an unnecessary build is better than a missing one.
    if rule.paths and event.paths is not None and not any(rule.paths.matches(path) for path in event.paths):
        return Mismatch("no changed path matches", f"no changed path matches; allowed: {_wanted(rule.paths)}")
    return None


def _another(what: str, came: str, wanted: str) -> Mismatch:
    # The value is the sender's input, so quote and truncate it.
    shown = repr(came[:_LONGEST]) + ("…" if len(came) > _LONGEST else "")
    return Mismatch(f"another {what}", f"the {what} is {shown}; allowed: {wanted}")


def _wanted(patterns: Patterns) -> str:
    left_out = [each.removeprefix("!") for each in patterns.root if each.startswith("!")]
    taken = _listed([each for each in patterns.root if not each.startswith("!")])
    return f"{taken}, without {_listed(left_out)}" if left_out else taken


def _listed(names: Sequence[str]) -> str:
    """Return the quoted names joined by "or"; ``none`` if there are none."""
    return " or ".join(repr(each) for each in names) or "none"


def _check_clone_host(rule: Rule, event: PushEvent, source: str) -> None:
    url = source if rule.source_is_of_event else event.clone_url
    if not rule.may_clone(url, event.repository):
        raise EventRefused(
            f"rule {rule.name}: {url[:_LONGEST]!r} is not {event.repository} on a host in the rule's clone_hosts",
            advice="Compare the event's clone URL and repository with `clone_hosts` in the configuration.",
        )


def _run(rule: Rule, event: Event) -> PlannedRun:
    parameters = fill(rule.parameters, event.fields)
    if isinstance(event, PushEvent):
        _check_clone_host(rule, event, str(parameters.get("source", "")))
    try:
        check(rule.deployment, rule.deployment_parameters | parameters)
    except InvalidInput as error:
        raise EventRefused(
            f"rule {rule.name}: the parameters for {rule.deployment} are not valid: {error.reason}",
            advice="Correct the rule's parameters in the configuration, and test them with `soci-pipeline webhook "
            "check`.",
        ) from error
    subject = f"{rule.name} {event.subject}" if rule.supersede else None
    return PlannedRun(rule.name, rule.deployment, parameters, subject)
