"""The configuration of a worker or control machine: typed sections, read once from the environment and passed on.

The field ``folder`` of the section ``work`` is set by ``SOCI_PIPELINE_WORK_FOLDER``. Lists are comma-separated. Options
of a single publication are parameters of the flow (`soci_pipeline.publish.request`), not settings. Secrets are neither:
they are resolved on the worker from blocks or secret stores.
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
# Only `soci_pipeline.registry.auth` reads credentials, when they are needed.
_NOT_SETTINGS = frozenset({"registry_username", "registry_password", "registry_token"})
_CACHE_PARAMETER = (
    "Unset it, and publish with the parameter `cache: registry`: one machine-wide cache was shared by all images."
)
_REMOVED = {f"{PREFIX}BUILD_CACHE_FROM": _CACHE_PARAMETER, f"{PREFIX}BUILD_CACHE_TO": _CACHE_PARAMETER}
_SIZE = re.compile(r"([0-9]{1,12})(KiB|MiB|GiB)")
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
# Kubernetes, "Environment variables" of a Service: its own form, and that of Docker's links.
_OF_A_SERVICE = re.compile(r"_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)\Z|_PORT(_[0-9]+_[A-Z]+(_(PROTO|PORT|ADDR))?)?\Z")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _default_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"soci-pipeline-{os.getuid()}"


class WorkSettings(_Section):
    """Where a worker keeps its working files."""

    folder: Path = Field(default_factory=_default_folder)
    """Each run has a folder below it for its blobs, removed at its end; the next run removes what a killed one left."""
    cache: Path | None = None
    """The cache of zTOCs of known layers; ``ztocs`` below `folder` by default."""
    jobs: int = Field(default=2, ge=1, le=64)
    """The number of layers indexed in parallel."""

    @property
    def ztoc_cache(self) -> Path:
        return self.cache or self.folder / "ztocs"


class RegistrySettings(_Section):
    """Access to registries, in addition to Docker's own configuration file."""

    ca_file: Path | None = None
    """CA certificates (PEM) for registries with private certificates."""
    plain_http: tuple[str, ...] = ()
    """Registries (host or host:port) accessed without TLS; loopback ones always are, unless `ca_file` is set."""
    jobs: int = Field(default=4, ge=1, le=64)
    """The number of blobs uploaded in parallel."""
    create_repository: bool = False
    """Create a missing repository first, if the registry supports it (ECR)."""
    part_size: int | None = Field(default=None, ge=1 << 20)
    """Blobs larger than this are uploaded in parts of at most this size: bytes, or a size like ``4MiB``.

    Set it if a registry or the proxy in front of it limits the size of a request; ECR always gets 5 to 10 MiB. Without
    it, a rejected part costs at most a quarter of one blob, and the rest is uploaded in one request, or in parts of 4
    or 1 MiB.
    """

    @field_validator("part_size", mode="before")
    @classmethod
    def _read_units(cls, value: object) -> object:
        found = _SIZE.fullmatch(value) if isinstance(value, str) else None
        return int(found[1]) * _UNITS[found[2]] if found else value


class EcrSettings(_Section):
    """Access to ECR, and the options of repositories created because of `RegistrySettings.create_repository`."""

    credentials_block: str | None = None
    """A Prefect block of type AwsCredentials, such as ``aws-credentials/publisher``.

    A publication from your own machine ignores it with a warning.
    """
    mutable_tags: tuple[str, ...] = ()
    """Patterns of tags that may move, at most five; others are immutable. ``*`` alone makes all tags mutable."""
    scan_on_push: bool = True
    """Whether ECR scans each pushed image."""
    kms_key: str | None = None
    """The key that encrypts the repository: an ARN, or ``aws/ecr`` for the account's own."""
    expiring_tags: tuple[str, ...] = ()
    """Patterns of short-lived tags, which a lifecycle policy removes."""
    expire_after_days: int = Field(default=14, ge=1)
    """The days after which it removes them."""


class BuildSettings(_Section):
    """Options shared by all builds on this worker."""

    buildx_builder: str | None = None
    """An existing buildx builder, possibly remote."""
    network: str | None = None
    """The network of RUN steps, for example ``host``."""


class ContainerdSettings(_Section):
    """Options of the toolchain ``containerd``; `CONTAINERD_ADDRESS` is read as well, as ctr does."""

    address: Path | None = None
    """containerd's socket; ``CONTAINERD_ADDRESS`` without the prefix is read as well."""
    soci_version: str | None = None
    """The release of soci to download if a worker has none; requires ``soci_sha256``."""
    soci_base_url: str | None = None
    """A mirror of soci's releases; the archive is checked before it is unpacked."""
    soci_sha256: str | None = None
    """The SHA-256 of the release's archive for this worker's architecture."""


class PublishSettings(_Section):
    """Options of the control flow. Times are in seconds."""

    worker_wait: float = Field(default=0, ge=0)
    """How many seconds a platform may be without a worker before the run fails."""
    start_timeout: float = Field(default=600, gt=0)
    """The seconds from a worker accepting a branch until its first line runs."""
    deadline: float = Field(default=6 * 3600, gt=0)
    """The seconds for the whole run; unfinished branches are then cancelled."""
    poll: float = Field(default=1.0, gt=0, le=60)
    """The seconds between two polls of the states of branches."""
    supersede: bool = True
    """Whether a newer run for the same image and ref cancels older ones that have not started yet."""
    signing_key: str | None = None
    """The cosign key that signs image indexes (a path on the control machine, or another key reference for cosign)."""
    signing_token: bool = False
    """Sign without a key, with an OIDC token from ``signing_token_file`` or the variable ``SIGSTORE_ID_TOKEN``."""
    signing_token_file: Path | None = None
    """The file with the OIDC token; it is read for each signature."""
    signing_config: Path | None = None
    """cosign's signing config for signing with a token; it names the services of a private Sigstore."""

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
        """Read ``SOCI_PIPELINE_<SECTION>_<FIELD>``; raise `InvalidInput` that names the variable.

        Variables of one word, such as ``SOCI_PIPELINE_HOME``, are not settings and are ignored here, as are those that
        Kubernetes sets in every pod for a Service whose name starts with this prefix.
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
                raise _unknown_setting(variable)
            sections[section][field] = _value(section, field, text)
        address = given.get("CONTAINERD_ADDRESS")
        if address:
            sections["containerd"].setdefault("address", address)
        try:
            return cls.model_validate(sections)
        except ValidationError as error:
            # Without a cause: pydantic's message quotes the value, which may be a password under a misspelt name.
            fault = problems_of(error)[0]
            variable = PREFIX + "_".join(str(part) for part in fault.place[:2]).upper()
            if fault.kind == "extra_forbidden":
                raise _unknown_setting(variable) from None
            raise InvalidInput(
                f"setting {variable}: {fault.text}", advice="Correct it, or unset it: all settings have defaults."
            ) from None


def _value(section: str, field: str, text: str) -> str | list[str]:
    model = Settings.model_fields[section].annotation
    known = model.model_fields.get(field) if isinstance(model, type) and issubclass(model, BaseModel) else None
    if known is not None and known.annotation == tuple[str, ...]:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _unknown_setting(variable: str) -> InvalidInput:
    """Return the error for an unknown variable, with the closest known one, or all if none is close."""
    if variable in _REMOVED:
        return InvalidInput(f"the setting {variable} was removed", advice=_REMOVED[variable])
    known = {name.removeprefix(PREFIX): name for name in _variables()}
    advice = did_you_mean(variable.removeprefix(PREFIX), known) or _known()
    return InvalidInput(f"unknown setting {variable}", advice=advice)


def _known() -> str:
    return f"The settings are {', '.join(sorted(_variables()))}."


def _variables() -> list[str]:
    names = [f"{PREFIX}{name}".upper() for name in _NOT_SETTINGS]
    for section, info in Settings.model_fields.items():
        model = info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            names += [f"{PREFIX}{section}_{field}".upper() for field in model.model_fields]
    return names
