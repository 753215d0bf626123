"""The schema of `publications.yaml`, version 1: frozen records that reject unknown keys."""

import difflib
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, field_validator, model_validator

from soci_pipeline.publications.schedule import check_cron, check_timezone
from soci_pipeline.publish.request import PublishRequest
from soci_pipeline.registry.reference import ImageReference

VERSION: Final = 1
NAME: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"
FLOW: Final = "publish-image"
MOST_RUNS: Final = 1_000_000
"""The largest limit of concurrent runs."""
COMMIT: Final[Mapping[str, Any]] = MappingProxyType({"ref": "${commit}"})
"""The default parameters from an event: the pushed commit."""
_PARAMETERS = frozenset(PublishRequest.model_fields)
_Texts = tuple[str, ...]


class Record(BaseModel):
    """A part of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Schedule(Record):
    """When a publication is started."""

    cron: str
    timezone: str = "UTC"
    active: StrictBool = True

    @model_validator(mode="before")
    @classmethod
    def _a_string_is_a_cron_expression(cls, value: Any) -> Any:
        return {"cron": value} if isinstance(value, str) else value

    @field_validator("cron")
    @classmethod
    def _cron_is_valid(cls, text: str) -> str:
        return check_cron(text)

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, name: str) -> str:
        return check_timezone(name)


class WhenBusy(StrEnum):
    """What happens to a run that starts when `Concurrency.limit` runs are active."""

    WAIT = "wait"
    SKIP = "skip"


class Concurrency(Record):
    """The number of concurrent runs of a publication."""

    limit: Annotated[StrictInt, Field(ge=1, le=MOST_RUNS)]
    when_busy: WhenBusy = WhenBusy.WAIT


class WebhookRule(Record):
    """Which pushes start a publication: the filters of a rule of the receiver's configuration."""

    sources: _Texts = Field(min_length=1)
    repositories: _Texts = Field(min_length=1)
    branches: _Texts = ()
    tags: _Texts = ()
    paths: _Texts = ()
    clone_hosts: _Texts = ()
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The parameters that an event changes; the pushed commit becomes ``ref`` unless this sets it."""
    supersede: StrictBool = True

    @field_validator("parameters")
    @classmethod
    def _parameters_are_those_of_a_publication(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        for name in parameters:
            if name not in _PARAMETERS:
                similar = difflib.get_close_matches(name[:80], _PARAMETERS, n=1)
                suggestion = (
                    f"did you mean {similar[0]!r}?"
                    if similar
                    else f"the parameters are {', '.join(sorted(_PARAMETERS))}"
                )
                raise ValueError(f"unknown parameter {name[:80]!r}; {suggestion}")
        return parameters

    @property
    def run_parameters(self) -> dict[str, Any]:
        """The parameters of a run that an event starts, before its fields are filled in."""
        return dict(COMMIT) | self.parameters


class Publication(PublishRequest):
    """One image: the parameters of its publication, and what starts it."""

    name: str = Field(pattern=NAME)
    description: str | None = Field(default=None, max_length=2000)
    schedule: Schedule | None = None
    concurrency: Concurrency | None = None
    webhook: WebhookRule | None = None

    @property
    def deployment(self) -> str:
        """The deployment that this publication creates."""
        return f"{FLOW}/{self.name}"

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters that the file sets, as JSON, without those at their default."""
        given = self.model_dump(mode="json", include=set(_PARAMETERS & self.model_fields_set), exclude_unset=True)
        return without_defaults(given)


class Publications(Record):
    """The whole file. ``owner`` marks its deployments on the server, so that several files can share one server."""

    owner: str = Field(pattern=NAME)
    publications: tuple[Publication, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [each.name for each in self.publications]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two publications have the name {twice[0]!r}")
        return self

    @property
    def tag(self) -> str:
        """The tag of the deployments that belong to this file."""
        return f"publications:{self.owner}"

    def publication(self, name: str) -> Publication | None:
        """The publication of that name."""
        return next((each for each in self.publications if each.name == name), None)


def _defaults() -> dict[str, Any]:
    optional = {name for name, field in PublishRequest.model_fields.items() if not field.is_required()}
    plain = PublishRequest(image=ImageReference.parse("registry.example.com/any"), source="https://git.example.com/any")
    return plain.model_dump(mode="json", include=optional)


_DEFAULTS: Final = _defaults()


def without_defaults(parameters: Mapping[str, Any], defaults: Mapping[str, Any] = _DEFAULTS) -> dict[str, Any]:
    """Remove parameters without effect: null, empty strings and defaults.

    Prefect's UI sends the defaults of a form's fields, and null for empty ones.
    """
    kept: dict[str, Any] = {}
    for name, value in parameters.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            value = without_defaults(value, default)
        if not _is_default(value, {} if isinstance(default, Mapping) else default):
            kept[name] = value
    return kept


def _is_default(value: Any, default: Any) -> bool:
    # 1 equals True in Python, but is different here.
    return value is None or value == "" or (value == default and isinstance(value, bool) == isinstance(default, bool))
