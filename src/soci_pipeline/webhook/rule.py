"""A rule of the receiver's configuration: which events start which deployment."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from soci_pipeline.webhook.clone_urls import CloneHost, CloneUrl
from soci_pipeline.webhook.flow_parameters import FLOWS
from soci_pipeline.webhook.globs import Patterns
from soci_pipeline.webhook.sources.source import NAME, Section
from soci_pipeline.webhook.templates import placeholders

_CREDENTIALS = ("source_credentials", "build_secrets")


class Rule(Section):
    """Which events start which deployment, with which parameters.

    All given filters must match. Patterns: ``*`` stays within a path segment, ``**`` does not, ``!pattern`` excludes
    again. A push must match ``branches`` or ``tags``; an image must match ``tags``.
    """

    name: str = Field(pattern=NAME)
    sources: tuple[str, ...] = Field(min_length=1)
    on: Literal["push", "image"] = "push"
    repositories: Patterns
    branches: Patterns = Patterns()
    tags: Patterns = Patterns()
    paths: Patterns = Patterns()
    clone_hosts: tuple[str, ...] = ()
    """The allowed hosts to clone from, as ``https://git.example.com``; required if a rule passes credentials."""
    deployment: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$")
    publication: str | None = None
    """The name of the publication that the deployment belongs to; the configuration sets it instead of `deployment`."""
    parameters: dict[str, Any]
    deployment_parameters: dict[str, Any] = Field(default_factory=dict)
    """The publication's own parameters: validated together with `parameters`, but not sent."""
    supersede: bool = True
    """Whether a newer event of the same ref replaces an older one that has not been dispatched yet."""

    @field_validator("deployment")
    @classmethod
    def _deployment_is_of_a_known_flow(cls, deployment: str) -> str:
        if deployment.partition("/")[0] not in FLOWS:
            raise ValueError(f"the flow must be one of {', '.join(sorted(FLOWS))}")
        return deployment

    @model_validator(mode="after")
    def _filters_can_match_something(self) -> Self:
        if not self.repositories:
            raise ValueError("list the repositories: everyone who can push to one of them can start this deployment")
        if self.on == "push" and not (self.branches or self.tags):
            raise ValueError("a rule for pushes requires branches or tags")
        if self.on == "image" and not self.tags:
            raise ValueError("a rule for images requires tags")
        if self.on == "image" and (self.branches or self.paths):
            raise ValueError("a rule for images does not allow branches or paths")
        return self

    @model_validator(mode="after")
    def _a_publication_is_started_by_pushes(self) -> Self:
        if self.publication is not None and self.on != "push":
            raise ValueError(f"a publication is built from a push, so `on` must be push, not {self.on}")
        return self

    @model_validator(mode="after")
    def _templates_name_known_fields(self) -> Self:
        placeholders(self.parameters, kind=self.on)
        return self

    @field_validator("clone_hosts")
    @classmethod
    def _clone_hosts_are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            CloneHost.parse(host)
        return hosts

    @model_validator(mode="after")
    def _credentials_stay_with_pinned_hosts(self) -> Self:
        credentials = {name: self.all_parameters[name] for name in _CREDENTIALS if self.all_parameters.get(name)}
        for name in credentials:
            if placeholders(self.parameters.get(name), kind=self.on):
                raise ValueError(f"{name} must not come from an event: the sender would choose the secret")
        if credentials and self.source_is_of_event and not self.clone_hosts:
            raise ValueError(
                f"{' and '.join(credentials)} would be sent to any host in an event: list the allowed hosts, for "
                "example clone_hosts: [https://git.example.com]"
            )
        return self

    @property
    def all_parameters(self) -> dict[str, Any]:
        """The parameters of a run: those of the rule override those of its publication."""
        return self.deployment_parameters | self.parameters

    @property
    def source_is_of_event(self) -> bool:
        """Whether an event determines what is cloned."""
        return bool(placeholders(self.parameters.get("source"), kind=self.on))

    def may_clone(self, url: str, repository: str) -> bool:
        """Whether the URL is this repository on one of `clone_hosts`; any URL is allowed if none are listed."""
        if not self.clone_hosts:
            return True
        try:
            parsed = CloneUrl.parse(url)
        except ValueError:
            return False
        return any(CloneHost.parse(host).holds(parsed, repository) for host in self.clone_hosts)
