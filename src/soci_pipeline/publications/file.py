"""Read `publications.yaml`: every fault is found before anything is done, each with its line."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from soci_pipeline.errors import InvalidInput
from soci_pipeline.publications.schema import MOST_RUNS, NAME, VERSION, Publication, Publications, Record
from soci_pipeline.strict_yaml import Located, Place, fault_of, parse_located
from soci_pipeline.validation import Problem, problems_of

_MAX_BYTES = 1 << 20
_MOST_FAULTS = 20
_LONGEST_VALUE = 80
_DESCRIBED = "Correct the file; the documentation describes it, with an example. Nothing was changed."
_TOP = ("version", "owner", "defaults", "publications")
_DEFAULTS = tuple(key for key in Publication.model_fields if key not in ("name", "description"))
_NAME_RULE = "must be at most 63 lower-case letters, digits and hyphens, and must not start with a hyphen"
# A user may have written the secret itself in place of its name.
_NEVER_SHOWN = frozenset({"build_args", "build_secrets", "source_credentials", "source", "prebuilt"})
# The messages of the project's own validators have the value already, where it may be shown.
_NOT_QUOTED = frozenset({"value_error", "missing", "extra_forbidden", "too_short"})


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in the file: its line, the publication it belongs to, and the message."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class PublicationsFile:
    """A file that is valid."""

    path: Path
    content: Publications
    document: Located

    def rejected(self, name: str, key: str, text: str) -> InvalidInput:
        """Return the error for a key of one publication."""
        names = [each.name for each in self.content.publications]
        place: Place = ("publications", names.index(name), key)
        if place not in self.document.lines and ("defaults", key) in self.document.lines:
            place = ("defaults", key)
        return _invalid(self.path, [Fault(self.document.line(place), f"publication {name}: {key}{text}")])


def load(path: Path) -> PublicationsFile:
    """Read and check a file; raises `InvalidInput` with a line for each fault."""
    document = _document(path)
    faults = list(_shape_faults(document))
    # The keys of another version are unknown.
    entries = _entries(document) if _has_version(document) else {}
    faults += [*_entry_faults(entries, document), *_duplicates(entries, document)]
    if faults:
        raise _invalid(path, faults)
    models = tuple(Publication.model_validate(each) for each in entries.values())
    return PublicationsFile(path, Publications(owner=document.value["owner"], publications=models), document)


def _invalid(path: Path, faults: list[Fault]) -> InvalidInput:
    ordered = sorted(dict.fromkeys(faults), key=lambda fault: fault.line)
    lines = [f"  - {path}:{fault.line}: {fault.text}" for fault in ordered]
    more = [f"  - and {len(lines) - _MOST_FAULTS} more"] if len(lines) > _MOST_FAULTS else []
    return InvalidInput(f"{path} is not valid:\n" + "\n".join(lines[:_MOST_FAULTS] + more), advice=_DESCRIBED)


def _document(path: Path) -> Located:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise InvalidInput(f"{path} is larger than {_MAX_BYTES >> 20} MiB", advice=_DESCRIBED)
        document = parse_located(data.decode())
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror}", advice="Check the path of --publications."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text: byte {error.start + 1}", advice=_DESCRIBED) from error
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path} is not valid YAML: {fault_of(error)}", advice=_DESCRIBED) from error
    except ValueError as error:
        raise InvalidInput(f"{path} is not valid YAML: {error}", advice=_DESCRIBED) from error
    if not isinstance(document.value, dict):
        found = "it is empty" if document.value is None else f"it is {_kind(document.value)}, not a mapping"
        raise InvalidInput(f"{path} is not valid: {found}", advice=_DESCRIBED)
    return document


def _shape_faults(document: Located) -> Iterator[Fault]:
    """Whether the file has a known version, and the keys that any version 1 has."""
    found = document.value
    if not _has_version(document):
        yield Fault(document.line(("version",)), f"version: must be {VERSION}, not {_shown(found.get('version'))}")
        return
    for key in found:
        if key not in _TOP:
            yield Fault(document.line((str(key),)), _unknown(str(key), _TOP))
    owner = found.get("owner")
    if not isinstance(owner, str):
        yield Fault(document.line(("owner",)), f"owner: must be a string, not {_shown(owner)}")
    elif not re.fullmatch(NAME.removesuffix("$"), owner):
        yield Fault(document.line(("owner",)), f"owner: {_shown(owner)} {_NAME_RULE}")
    publications, defaults = found.get("publications"), found.get("defaults")
    if not isinstance(publications, list) or not publications:
        text = f"publications: must be a list of at least one mapping, not {_shown(publications)}"
        yield Fault(document.line(("publications",)), text)
    else:
        for number, each in enumerate(publications):
            if not isinstance(each, dict):
                text = f"publications.{number}: must be a mapping, not {_shown(each)}"
                yield Fault(document.line(("publications", number)), text)
    if not isinstance(defaults, dict | None):
        yield Fault(document.line(("defaults",)), f"defaults: must be a mapping, not {_shown(defaults)}")
        return
    for key in defaults or {}:
        if key not in _DEFAULTS:
            yield Fault(document.line(("defaults", str(key))), f"defaults: {_unknown(str(key), _DEFAULTS)}")


def _has_version(document: Located) -> bool:
    version = document.value.get("version")
    return version == VERSION and not isinstance(version, bool)


def _entries(document: Located) -> dict[int, dict[Any, Any]]:
    """Return the publications by their position in the list, with defaults filled in; null removes a default."""
    defaults, publications = document.value.get("defaults"), document.value.get("publications")
    known = {key: value for key, value in defaults.items() if key in _DEFAULTS} if isinstance(defaults, dict) else {}
    listed = enumerate(publications if isinstance(publications, list) else ())
    merged = {number: known | each for number, each in listed if isinstance(each, dict)}
    return {number: {key: value for key, value in each.items() if value is not None} for number, each in merged.items()}


def _entry_faults(entries: Mapping[int, dict[Any, Any]], document: Located) -> Iterator[Fault]:
    for number, entry in entries.items():
        try:
            Publication.model_validate(entry)
        except ValidationError as error:
            yield from _faults_of(error, number, entry, document)


def _faults_of(error: ValidationError, number: int, entry: Mapping[Any, Any], document: Located) -> Iterator[Fault]:
    inputs = [each.get("input") for each in error.errors(include_url=False)]
    pairs = list(zip(problems_of(error), inputs, strict=True))
    # A string is parsed only if it is not already an instance, so the parse error is more specific.
    telling = [pair for pair in pairs if pair[0].kind != "is_instance_of"] or pairs
    for problem, value in telling:
        place = tuple(part for part in problem.place if not str(part).startswith("function"))
        yield Fault(_line(place, number, document), f"{_whose(number, entry)}: {_text(problem, place, value)}")


def _line(place: Place, number: int, document: Located) -> int:
    own: Place = ("publications", number)
    if place and (*own, place[0]) not in document.lines and ("defaults", place[0]) in document.lines:
        return document.line(("defaults", *place))
    return document.line((*own, *place))


def _whose(number: int, entry: Mapping[Any, Any]) -> str:
    name = entry.get("name")
    return f"publication {name[:63]}" if isinstance(name, str) and name.isprintable() else f"publications.{number}"


def _text(problem: Problem, place: Place, value: Any) -> str:
    if problem.kind == "extra_forbidden":
        where = _dotted(place[:-1])
        return (
            f"{where}: {_unknown(str(place[-1]), _known(place))}" if where else _unknown(str(place[-1]), _known(place))
        )
    shown = problem.kind not in _NOT_QUOTED and not _NEVER_SHOWN.intersection(place)
    text = _with_value(problem, value) if shown else _plain(problem)
    if place == ("concurrency", "limit") and problem.kind in ("greater_than_equal", "less_than_equal"):
        text += f" (allowed: 1 to {MOST_RUNS})"
    return f"{_dotted(place)}: {text}" if place else text


def _dotted(place: Place) -> str:
    parts = [str(part) for part in place]
    return ".".join(part[:_LONGEST_VALUE] if part.isprintable() else repr(part[:_LONGEST_VALUE]) for part in parts)


def _with_value(problem: Problem, value: Any) -> str:
    if problem.kind == "string_pattern_mismatch":
        return f"{_shown(value)} {_NAME_RULE}"
    text = _plain(problem)
    return f"{_shown(value)} {text}" if text.startswith("is ") else f"{text}, not {_shown(value)}"


def _plain(problem: Problem) -> str:
    return problem.text.replace("Input should be", "must be")


def _known(place: Place) -> list[str]:
    """Return the keys that are allowed next to the last part of a path."""
    model: Any = Publication
    for part in place[:-1]:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        choices = [annotation, *getattr(annotation, "__args__", ())]
        model = next((each for each in choices if isinstance(each, type) and hasattr(each, "model_fields")), Record)
    return list(model.model_fields)


def _unknown(key: str, known: Any) -> str:
    similar = difflib.get_close_matches(key[:_LONGEST_VALUE], known, n=1)
    suggestion = f"did you mean {similar[0]!r}?" if similar else f"the keys are {', '.join(known)}"
    return f"unknown key {key[:_LONGEST_VALUE]!r}; {suggestion}"


def _duplicates(entries: Mapping[int, dict[Any, Any]], document: Located) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for number, entry in entries.items():
        name = entry.get("name")
        if not isinstance(name, str):
            continue
        line = document.line(("publications", number, "name"))
        if name in first:
            yield Fault(line, f"publication {name[:63]}: the name is already used in line {first[name]}")
        first.setdefault(name, line)


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"the value {_shown(value)}"


def _shown(value: Any) -> str:
    """Format a value for a message: containers only by their kind, long values truncated."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
