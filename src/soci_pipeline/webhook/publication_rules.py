"""Rules for publications: those declared in a publications file, and rules that refer to a publication by name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from soci_pipeline.errors import InvalidInput
from soci_pipeline.publications.file import PublicationsFile, load
from soci_pipeline.publications.schema import COMMIT, Publication
from soci_pipeline.validation import problems_of
from soci_pipeline.webhook.rule import Rule


def expanded(document: Mapping[Any, Any], folder: Path) -> dict[Any, Any]:
    """Return the configuration with the rules of its publications file; ``folder`` contains the configuration file.

    Raises `InvalidInput` if the publications file is not valid, or if a rule names a publication that is not in it.
    """
    named, rules = document.get("publications"), document.get("rules")
    own = rules if isinstance(rules, list) else []
    if not isinstance(named, str):
        if named is None and (wrong := [each for each in own if _publication(each)]):
            raise _without_file(wrong[0])
        return dict(document)
    file = load(folder / named)
    check_rules(file)
    filled = [_filled(each, file) for each in own]
    declared = [_declared(each) for each in file.content.publications if each.webhook]
    return dict(document) | ({"rules": filled + declared} if isinstance(rules, list | None) else {})


def check_rules(file: PublicationsFile) -> None:
    """Validate the webhook rules of a publications file as the receiver does; raise `InvalidInput`."""
    for publication in file.content.publications:
        if publication.webhook is None:
            continue
        try:
            Rule.model_validate(_declared(publication))
        except ValidationError as error:
            problem = problems_of(error)[0]
            place = "".join(f".{part}" for part in problem.place)
            raise file.rejected(publication.name, "webhook", f"{place}: {problem.text}") from None


def _publication(rule: Any) -> Any:
    return rule.get("publication") if isinstance(rule, dict) else None


def _filled(rule: Any, file: PublicationsFile) -> Any:
    """Resolve a rule that names a publication to its deployment and parameters; return any other rule unchanged."""
    name = _publication(rule)
    if name is None:
        return rule
    publication = file.content.publication(name) if isinstance(name, str) else None
    if publication is None:
        known = ", ".join(each.name for each in file.content.publications)
        raise InvalidInput(
            f"rule {rule.get('name')!r}: publication {str(name)[:63]!r} is not in {file.path}",
            advice=f"Use one of {known}, or add it to that file.",
        )
    given = rule.get("parameters", {})
    parameters = dict(COMMIT) | given if isinstance(given, dict) else given
    return _base(publication) | rule | {"parameters": parameters}


def _declared(publication: Publication) -> dict[str, Any]:
    """Build the rule that a publication declares for itself."""
    assert publication.webhook is not None  # noqa: S101
    given = publication.webhook.model_dump(exclude={"parameters"}, exclude_unset=True)
    parameters = publication.webhook.run_parameters
    return _base(publication) | given | {"name": publication.name, "parameters": parameters}


def _base(publication: Publication) -> dict[str, Any]:
    return {
        "publication": publication.name,
        "deployment": publication.deployment,
        "deployment_parameters": publication.parameters,
    }


def _without_file(rule: Mapping[Any, Any]) -> InvalidInput:
    return InvalidInput(
        f"rule {rule.get('name')!r} names a publication, but the configuration has no publications file",
        advice="Add `publications: FILE` to the configuration; a relative path starts at its folder.",
    )


def reserved_keys(document: Mapping[Any, Any]) -> Iterator[str]:
    """Yield an error for each rule with `deployment_parameters`, or with both a deployment and a publication."""
    rules = document.get("rules")
    for each in rules if isinstance(rules, list) else []:
        if not isinstance(each, dict):
            continue
        if "deployment_parameters" in each:
            yield f"rule {each.get('name')}: deployment_parameters: unknown key"
        if "deployment" in each and "publication" in each:
            yield f"rule {each.get('name')}: set deployment or publication, not both"
