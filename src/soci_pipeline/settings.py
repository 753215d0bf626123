"""How a worker or a control machine is set up: typed sections, read from the environment once and handed on.

A field ``folder`` of the section ``work`` is spelled ``SOCI_PIPELINE_WORK_FOLDER``. Lists are separated by commas. What
belongs to one publication is a parameter of the flow (`soci_pipeline.publish.request`), not a setting; secrets are
neither: they are resolved on the worker from blocks or secret stores.
"""

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from soci_pipeline.errors import InvalidInput
from soci_pipeline.text import did_you_mean
from soci_pipeline.validation import problems_of

PREFIX = "SOCI_PIPELINE_"
# Credentials are read by `soci_pipeline.registry.auth` alone, at the moment they are needed.
_NOT_SETTINGS = frozenset({"registry_username", "registry_password", "registry_token"})
_CACHE_PARAMETER = (
    "Unset it, and publish with the parameter `cache: registry`: one machine-wide cache was shared by all images."
)
_REMOVED = {f"{PREFIX}BUILD_CACHE_FROM": _CACHE_PARAMETER, f"{PREFIX}BUILD_CACHE_TO": _CACHE_PARAMETER}
_SIZE = re.compile(r"([0-9]{1,12})(KiB|MiB|GiB)")
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
# Kubernetes, "Environment variables" of a Service: those of its own form, and those of Docker's links.
_OF_A_SERVICE = re.compile(r"_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)\Z|_PORT(_[0-9]+_[A-Z]+(_(PROTO|PORT|ADDR))?)?\Z")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _default_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"soci-pipeline-{os.getuid()}"


class WorkSettings(_Section):
    """Where a worker keeps what it is working on."""

    folder: Path = Field(default_factory=_default_folder)
    """Runs have a folder each below it, removed at their end; what a killed run left is removed at the next start."""
    cache: Path | None = None
    """zTOCs of layers seen before; ``ztocs`` below `folder` where nothing is said."""
    jobs: int = Field(default=2, ge=1, le=64)
    """How many layers are indexed at once."""

    @property
    def ztoc_cache(self) -> Path:
        return self.cache or self.folder / "ztocs"


class RegistrySettings(_Section):
    """How registries are talked to, beyond what Docker's own configuration file says."""

    ca_file: Path | None = None
    """CA certificates (PEM) for registries with certificates of their own."""
    plain_http: tuple[str, ...] = ()
    """Registries (host or host:port) that are spoken to without TLS; loopback ones are where there is no `ca_file`."""
    jobs: int = Field(default=4, ge=1, le=64)
    """How many blobs are uploaded at once."""
    create_repository: bool = False
    """Make a missing repository first, where the registry (ECR) has a call for it."""
    part_size: int | None = Field(default=None, ge=1 << 20)
    """A blob above this size in bytes (also ``4MiB``) goes up in parts of at most this size; 256 MiB by default, 5 to
    10 MiB for ECR."""

    @field_validator("part_size", mode="before")
    @classmethod
    def _read_units(cls, value: object) -> object:
        found = _SIZE.fullmatch(value) if isinstance(value, str) else None
        return int(found[1]) * _UNITS[found[2]] if found else value


class EcrSettings(_Section):
    """How ECR is spoken to, and what a repository is made with where `RegistrySettings.create_repository` says so."""

    credentials_block: str | None = None
    """A Prefect block of the type AwsCredentials, for example ``aws-credentials/publisher``; else boto3's own chain."""
    mutable_tags: tuple[str, ...] = ()
    """Patterns of tags that may move, at most five; others are immutable. ``*`` alone makes them all mutable."""
    scan_on_push: bool = True
    kms_key: str | None = None
    """The ARN of a key, or ``aws/ecr`` for the account's own; AES-256 where nothing is said."""
    expiring_tags: tuple[str, ...] = ()
    """Patterns of short-lived tags, which a lifecycle policy removes."""
    expire_after_days: int = Field(default=14, ge=1)


class BuildSettings(_Section):
    """What every build on this worker shares."""

    buildx_builder: str | None = None
    """A builder that exists already, a remote one too; else the engine's own, or one made for the run."""
    network: str | None = None
    """The network of RUN steps, for example ``host``."""


class ContainerdSettings(_Section):
    """What the toolchain ``containerd`` needs; `CONTAINERD_ADDRESS` is read as well, as ctr does."""

    address: Path | None = None
    """containerd's socket; else the one under the Docker engine is looked for."""
    soci_version: str | None = None
    """The release of soci that is fetched where a worker has none."""
    soci_base_url: str | None = None
    """Where releases are fetched from."""
    soci_sha256: str | None = None
    """The sha256 of the release's archive for this worker's architecture."""


class PublishSettings(_Section):
    """What the control flow goes by. Times are seconds."""

    worker_wait: float = Field(default=0, ge=0)
    """How long a platform may be without a worker before the run fails."""
    start_timeout: float = Field(default=600, gt=0)
    """How long a branch that a worker has taken may need until its first line runs."""
    deadline: float = Field(default=6 * 3600, gt=0)
    """The whole run; branches that are not done by then are cancelled."""
    poll: float = Field(default=1.0, gt=0, le=60)
    """How often the branches' states are asked for."""
    supersede: bool = True
    """A newer run for the same image and ref cancels older ones that have not started yet."""
    signing_key: str | None = None
    """The cosign key (a path on the control machine, or what cosign takes) that image indexes are signed with."""
    signing_token: bool = False
    """Sign without a key, by an OIDC token in ``signing_token_file`` or in the variable ``SIGSTORE_ID_TOKEN``."""
    signing_token_file: Path | None = None
    """The file that holds the OIDC token; it is read at each signing."""
    signing_config: Path | None = None
    """cosign's signing config for signing by token, which names the services of a private Sigstore."""

    @model_validator(mode="after")
    def _one_signer(self) -> Self:
        if self.signing_key is not None and self.signing_token:
            raise ValueError("SIGNING_KEY and SIGNING_TOKEN cannot both be set; unset one of them")
        return self


class Settings(_Section):
    """All sections."""

    work: WorkSettings = Field(default_factory=WorkSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    ecr: EcrSettings = Field(default_factory=EcrSettings)
    build: BuildSettings = Field(default_factory=BuildSettings)
    containerd: ContainerdSettings = Field(default_factory=ContainerdSettings)
    publish: PublishSettings = Field(default_factory=PublishSettings)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read ``SOCI_PIPELINE_<SECTION>_<FIELD>``; raises `InvalidInput` that names the variable.

        Variables of one word, such as ``SOCI_PIPELINE_HOME``, are no settings and are left to those that read them; and
        so are those that Kubernetes sets in every pod for a Service whose name begins as they do.
        """
        given = os.environ if environment is None else environment
        sections: dict[str, dict[str, Any]] = {name: {} for name in cls.model_fields}
        for variable, text in given.items():
            name = variable.removeprefix(PREFIX).lower()
            section, _, field = name.partition("_")
            if not variable.startswith(PREFIX) or name in _NOT_SETTINGS or _OF_A_SERVICE.search(variable):
                continue
            if not field or not text:
                continue
            if section not in sections:
                raise _no_such(variable)
            sections[section][field] = _value(section, field, text)
        address = given.get("CONTAINERD_ADDRESS")
        if address:
            sections["containerd"].setdefault("address", address)
        try:
            return cls.model_validate(sections)
        except ValidationError as error:
            # Not as a cause: pydantic's words quote the value, which may be a password under a misspelt name.
            fault = problems_of(error)[0]
            variable = PREFIX + "_".join(str(part) for part in fault.place[:2]).upper()
            if fault.kind == "extra_forbidden":
                raise _no_such(variable) from None
            raise InvalidInput(
                f"setting {variable}: {fault.text}", advice="Correct it, or unset it: all settings have defaults."
            ) from None


def _value(section: str, field: str, text: str) -> str | list[str]:
    model = Settings.model_fields[section].annotation
    known = model.model_fields.get(field) if isinstance(model, type) and issubclass(model, BaseModel) else None
    if known is not None and known.annotation == tuple[str, ...]:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _no_such(variable: str) -> InvalidInput:
    """The refusal of a variable, with the one that looks most like it; with all of them where none does."""
    if variable in _REMOVED:
        return InvalidInput(f"the setting {variable} was removed", advice=_REMOVED[variable])
    known = {name.removeprefix(PREFIX): name for name in _variables()}
    advice = did_you_mean(variable.removeprefix(PREFIX), known) or _known()
    return InvalidInput(f"there is no setting {variable}", advice=advice)


def _known() -> str:
    return f"Settings are {', '.join(sorted(_variables()))}."


def _variables() -> list[str]:
    names = [f"{PREFIX}{name}".upper() for name in _NOT_SETTINGS]
    for section, info in Settings.model_fields.items():
        model = info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            names += [f"{PREFIX}{section}_{field}".upper() for field in model.model_fields]
    return names
