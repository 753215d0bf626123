"""The parameters of a publication as options, generated from the model: names, help, defaults and checks.

A list is given by repeating its option (``--tag``, ``--platform``), a mapping or a group of parameters by repeating
``NAME=VALUE``. ``--params FILE`` contains parameters by name, as JSON or YAML; an option overrides the file.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import click
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from soci_pipeline.commands.command import FILE_PATH, Arguments, combine
from soci_pipeline.errors import InvalidInput
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.publish.secret_places import is_place_of_this_machine
from soci_pipeline.settings import Settings
from soci_pipeline.strict_yaml import parse_text
from soci_pipeline.text import did_you_mean
from soci_pipeline.validation import Problem, problems_of

_ARGUMENTS = ("source", "image")
_SINGULAR = {"tags": "tag", "platforms": "platform"}
# The value may be a secret that was given in the wrong place.
_NOT_REPEATED = frozenset({"build_args", "build_secrets", "source_credentials"})
_SECRET_PLACES = frozenset({"build_secrets", "source_credentials"})
_SHOWN = 100
_MAX_BYTES = 1 << 20
# Both are required and not shown.
_DEFAULTS = PublishRequest.model_construct(image=None, source=None).model_dump(mode="json", exclude=set(_ARGUMENTS))  # type: ignore[arg-type]


class _NameValue(click.ParamType[tuple[str, str]]):
    """One entry of a mapping, ``NAME=VALUE``."""

    name = "NAME=VALUE"

    def convert(
        self,
        value: str | tuple[str, str],
        param: click.Parameter | None,  # noqa: ARG002
        ctx: click.Context | None,  # noqa: ARG002
    ) -> tuple[str, str]:
        """Split at the first equals sign."""
        if not isinstance(value, str):
            return value
        name, equals, rest = value.partition("=")
        if not equals or not name:
            raise click.BadParameter("must have the form NAME=VALUE")
        return name, rest


def option_of(name: str) -> str:
    """The option of a parameter, such as ``--build-args``; for an argument, its name in the help."""
    return name.upper() if name in _ARGUMENTS else f"--{_SINGULAR.get(name, name).replace('_', '-')}"


def _option(name: str, field: FieldInfo) -> Callable[[Any], Any]:
    kind: Any = next((each for each in get_args(field.annotation) if each is not type(None)), field.annotation)
    # click shows its own default, so the text contains the model's default.
    settings: dict[str, Any] = {"default": None, "help": _help(name, field)}
    words = [name, option_of(name)]
    if field.annotation is bool:
        return click.option(name, f"{option_of(name)}/{option_of(name).replace('--', '--no-', 1)}", **settings)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return click.option(*words, type=click.Choice([each.value for each in kind]), **settings)
    if _is_mapping(field):
        return click.option(*words, type=_NameValue(), multiple=True, metavar="NAME=VALUE", **settings)
    if name in _SINGULAR:
        return click.option(*words, multiple=True, metavar=_SINGULAR[name].upper(), **settings)
    metavar = "SECONDS" if field.annotation is not str and name == "worker_wait" else "TEXT"
    return click.option(*words, metavar=metavar, **settings)


def _is_mapping(field: FieldInfo) -> bool:
    kind = field.annotation
    return (isinstance(kind, type) and issubclass(kind, BaseModel)) or str(kind).startswith("dict")


def _is_group(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _help(name: str, field: FieldInfo) -> str:
    text = (field.description or "").rstrip()
    default = _DEFAULTS[name]
    if _is_group(field):
        return f"{text} NAME is one of {', '.join(default)}."
    if isinstance(default, list):
        default = ", ".join(default)
    many = " May be repeated." if name in _SINGULAR else ""
    many += " From this machine: file:PATH, env:NAME or an ARN." if name in _SECRET_PLACES else ""
    known = default not in (None, False, {}, "") and field.annotation is not bool
    return f"{text}{many}" + (f"  [default: {default}]" if known else "")


parameter_options = combine(
    *(_option(name, field) for name, field in PublishRequest.model_fields.items() if name not in _ARGUMENTS),
    click.option(
        "--params",
        type=FILE_PATH,
        metavar="FILE",
        help="a file of parameters by name, as JSON or YAML; options override it",
    ),
)
"""Add an option for each parameter except source and image, and ``--params``."""


def request_of(arguments: Arguments, *, source: str, kind: type[PublishRequest] = PublishRequest) -> PublishRequest:
    """Return the validated parameters; raise `InvalidInput` that names each option, its value and what is allowed."""
    from_file = {} if arguments.params is None else _read(arguments.params)
    given = _set_options(arguments)
    values: dict[str, Any] = dict(from_file)
    for name, value in given.items():
        held = values.get(name)
        values[name] = held | value if isinstance(held, dict) and isinstance(value, dict) else value
    values |= {"source": source, "image": arguments.image}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = problems_of(error, unknown="no such parameter")
        # A string is parsed only if it is not already an instance, so the parse error is more specific.
        telling = [problem for problem in problems if problem.kind != "is_instance_of"] or problems
        lines = [_line(problem, values, given, arguments.params) for problem in telling]
        # Without a cause: pydantic's message quotes the value, which may be a secret.
        raise InvalidInput("; ".join(dict.fromkeys(lines)), advice=_advice(values, kind, telling)) from None


def _advice(values: Mapping[str, Any], kind: type[PublishRequest], problems: Sequence[Problem]) -> str:
    secrets = values.get("build_secrets")
    places = [values.get("source_credentials"), *(secrets.values() if isinstance(secrets, Mapping) else ())]
    ours = any(isinstance(place, str) and is_place_of_this_machine(place) for place in places)
    if ours and not kind.secrets_of_this_machine:
        return "file:PATH and env:NAME require --local, because this machine reads them; with Prefect, use a block."
    if all(problem.place[:1] == ("platforms",) for problem in problems) and kind.secrets_of_this_machine:
        return _platform_advice()
    return "`soci-pipeline publish --help` describes each option."


def _platform_advice() -> str:
    from soci_pipeline.builders.platforms import HELP, platforms_of_this_machine

    named = Settings.from_environment().build.buildx_builder
    if named:
        return f"`docker buildx inspect {named}` lists the platforms that the builder {named} can build."
    own = sorted(platforms_of_this_machine())
    return f"This machine can build {', '.join(map(str, own))}; to add another platform, {HELP}."


def _set_options(arguments: Arguments) -> dict[str, Any]:
    """Return the parameters that were set by options."""
    found: dict[str, Any] = {}
    for name, field in PublishRequest.model_fields.items():
        value = None if name in _ARGUMENTS else getattr(arguments, name)
        if value is None or value == ():
            continue
        found[name] = dict(value) if _is_mapping(field) else list(value) if name in _SINGULAR else value
    if "platforms" in found:
        found["platforms"] = [part for text in found["platforms"] for part in text.split(",")]
    return found


def _read(path: Path) -> dict[str, Any]:
    """Return the parameters in a file; raise `InvalidInput` that names it."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"--params {path}: {error.strerror}", advice="Use a file with parameters.") from error
    if len(data) > _MAX_BYTES:
        raise InvalidInput(f"--params {path} is larger than {_MAX_BYTES >> 20} MiB", advice="Use another file.")
    try:
        document = parse_text(data.decode())
    except (ValueError, yaml.YAMLError) as error:
        raise InvalidInput(
            f"--params {path} is not valid JSON or YAML{_where(error)}", advice="Correct the file."
        ) from error
    if not isinstance(document, dict):
        raise InvalidInput(f"--params {path} must contain parameters by name", advice="For example `tags: [v1]`.")
    for name in document:
        if name not in PublishRequest.model_fields:
            known = {each: each for each in PublishRequest.model_fields}
            advice = did_you_mean(str(name), known) or f"The parameters are {', '.join(known)}."
            raise InvalidInput(f"--params {path}: there is no parameter {str(name)[:_SHOWN]!r}", advice=advice)
    return document


def _where(error: ValueError | yaml.YAMLError) -> str:
    """Return the line and the error, without the rest of the message, which may quote a secret value."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return ""
    line = "" if error.problem_mark is None else f" (line {error.problem_mark.line + 1})"
    return f"{line}: {error.problem}"


def _line(problem: Problem, values: Mapping[str, Any], given: Mapping[str, Any], file: Path | None) -> str:
    """Describe one problem: the option or the place in the file, the value unless it may be a secret, and the error."""
    if not problem.place:
        return problem.text
    name = str(problem.place[0])
    field = PublishRequest.model_fields.get(name)
    inner = str(problem.place[1]) if len(problem.place) > 1 and field is not None and _is_mapping(field) else ""
    value = values.get(name)
    for part in problem.place[1:]:
        value = _item(value, part)
    from_file = file is not None and name not in given and name not in _ARGUMENTS
    where = f"{file}: {name}" if from_file else option_of(name)
    shown = "" if name in _NOT_REPEATED or not isinstance(value, str | int | float) else f" {str(value)[:_SHOWN]!r}"
    if inner:
        key = inner[:_SHOWN] if inner.isprintable() else repr(inner[:_SHOWN])
        shown = f" {key}" + ("" if not shown else f"={str(value)[:_SHOWN]}")
    return f"{where}{shown}: {problem.text}"


def _item(value: Any, part: int | str) -> Any:
    if isinstance(value, Mapping):
        return value.get(part, value)
    if isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
        return value[part]
    return value
