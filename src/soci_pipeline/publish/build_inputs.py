"""The parameters that determine the bytes of an image; a publication and its branches share them."""

import posixpath
import re
from enum import StrEnum
from typing import ClassVar, Self

from pydantic import Field, field_validator, model_validator

from soci_pipeline.aws.secrets import is_secret_arn
from soci_pipeline.builders.builder import BuilderName
from soci_pipeline.git.address import CONTROL
from soci_pipeline.publish.build_cache import DEFAULT_TEMPLATE, CacheMode, CacheTemplate
from soci_pipeline.publish.secret_places import is_place_of_this_machine
from soci_pipeline.soci.index.records import SociOptions
from soci_pipeline.urls import LOGIN_IN_URL
from soci_pipeline.validation import Parameters

_ARG_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_SECRET_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_BLOCK = re.compile(r"[a-z0-9][a-z0-9-]*/[A-Za-z0-9][A-Za-z0-9_-]*\Z")
_LOOKS_SECRET = re.compile(
    r"(?:^|_)(?:password|passwd|pwd|secret|secrets|token|api_?key|access_?key|private_?key|credentials?)(?:_|$)", re.I
)


class ToolchainName(StrEnum):
    """The indexer: this library, or containerd and the soci command."""

    NATIVE = "native"
    CONTAINERD = "containerd"


class BuildInputs(Parameters):
    """The inputs that determine the bytes of the image, equal for all platforms."""

    secrets_of_this_machine: ClassVar[bool] = False
    """Whether secrets may be files and variables of this machine, which only its own user may request."""

    context: str = Field(default=".", title="Build context", description="A folder in the source.")
    dockerfile: str = Field(
        default="Dockerfile", title="Dockerfile", description="Its path, relative to the build context."
    )
    target: str | None = Field(
        default=None, title="Build stage", description="The stage to build. Empty: the last stage."
    )
    build_args: dict[str, str] = Field(
        default_factory=dict,
        title="Build arguments",
        description="They stay in the image's history, so they must not contain secrets.",
        examples=[{"VERSION": "1.4"}],
    )
    build_secrets: dict[str, str] = Field(
        default_factory=dict,
        title="Build secrets",
        description="Maps the id of a secret to its location: a Prefect block (secret/npm-token) or an ARN.",
        examples=[{"npm": "secret/npm-token"}],
    )
    source_credentials: str | None = Field(
        default=None,
        title="Source credentials",
        description="For a private repository: a Prefect block (secret/git-token) or the ARN of a secret.",
        examples=["secret/git-token"],
    )
    builder: BuilderName = Field(
        default=BuilderName.AUTO,
        title="Builder",
        description="The tool that builds the image. auto: buildx if the worker has it, else its Docker engine.",
    )
    prebuilt: str | None = Field(
        default=None,
        title="Prebuilt image",
        description="Only for the builder prebuilt: path or URL of an archive or layout. {platform} in it is "
        "replaced; #ref=NAME at the end selects one of several images.",
        examples=["https://builds.example.com/web/{platform}.tar"],
    )
    toolchain: ToolchainName = Field(
        default=ToolchainName.NATIVE,
        title="Indexing toolchain",
        description="native: this project's own indexer. containerd: ctr and the soci command of the worker.",
    )
    soci: SociOptions = Field(
        default_factory=SociOptions,
        title="SOCI index",
        description="The version of the index, and the sizes of spans and layers.",
    )
    attestations: bool = Field(
        default=False, title="Attestations", description="Also publish BuildKit's provenance and SBOM."
    )
    pull: bool = Field(
        default=False,
        title="Newer base images",
        description="Pull newer base images even if the worker's engine has one; for scheduled rebuilds.",
    )

    cache: CacheMode = Field(
        default=CacheMode.OFF,
        title="Build cache",
        description="registry: keep a cache for each branch and platform next to the image. It contains the layers of "
        "all stages, and everyone who can pull from there can read it.",
    )
    cache_reference: CacheTemplate = Field(
        default=DEFAULT_TEMPLATE,
        title="Build cache location",
        description="A template with {image}, {platform} and {ref}; needed if the image's tags are immutable.",
        examples=["cache.example.com/{image}:{platform}-{ref}"],
    )

    @field_validator("context")
    @classmethod
    def _context_stays_inside_the_source(cls, path: str) -> str:
        return _inside(path)

    @model_validator(mode="after")
    def _dockerfile_stays_inside_the_source(self) -> Self:
        if self.dockerfile.startswith("/"):
            raise ValueError(
                f"dockerfile {self.dockerfile[:200]!r} is an absolute path; it must be relative to the context"
            )
        _inside(self.dockerfile_in_source)
        return self

    @property
    def dockerfile_in_source(self) -> str:
        """The Dockerfile's path relative to the top of the source; `dockerfile` itself is relative to the context."""
        return posixpath.normpath(posixpath.join(self.context, self.dockerfile))

    @property
    def required_files(self) -> tuple[str, ...]:
        """The files that the commit must contain for the build (`BuilderName.needs`)."""
        places = {"context": self.context, "dockerfile": posixpath.join(self.context, self.dockerfile)}
        return tuple(places[name] for name in self.builder.needs)

    @field_validator("target")
    @classmethod
    def _target_is_a_stage(cls, target: str | None) -> str | None:
        if target and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", target):
            raise ValueError(f"{target[:100]!r} is not a valid build stage name")
        return target or None

    @field_validator("build_args")
    @classmethod
    def _build_args_hold_no_secrets(cls, arguments: dict[str, str]) -> dict[str, str]:
        for name, value in arguments.items():
            if not _ARG_NAME.match(name):
                raise ValueError(f"{name[:100]!r} is not a valid build argument name")
            if _LOOKS_SECRET.search(name) or LOGIN_IN_URL.search(value):
                raise ValueError(
                    f"the build argument {name} looks like a secret, but build arguments stay in the image's history; "
                    "use build_secrets"
                )
        return arguments

    @field_validator("build_secrets")
    @classmethod
    def _build_secrets_are_names_of_places(cls, secrets: dict[str, str]) -> dict[str, str]:
        for name, place in secrets.items():
            if not _SECRET_ID.match(name):
                raise ValueError(f"{name[:100]!r} is not a valid build secret id")
            # The value is not shown, because a user may have put the secret itself here.
            if not cls._is_secret_place(place):
                raise ValueError(f"the build secret {name} must name {cls._secret_places('secret/npm-token')}")
        return secrets

    @field_validator("source_credentials")
    @classmethod
    def _credentials_are_the_name_of_a_place(cls, place: str | None) -> str | None:
        if place and not cls._is_secret_place(place):
            raise ValueError(f"source_credentials must name {cls._secret_places('secret/git-token')}")
        return place or None

    @classmethod
    def _is_secret_place(cls, place: str) -> bool:
        if cls.secrets_of_this_machine and is_place_of_this_machine(place):
            return True
        return _BLOCK.match(place) is not None or is_secret_arn(place)

    @classmethod
    def _secret_places(cls, block: str) -> str:
        if cls.secrets_of_this_machine:
            return "file:PATH, env:NAME or the ARN of a secret"
        return f"a Prefect block ({block}) or the ARN of a secret"

    @model_validator(mode="after")
    def _the_builder_has_a_cache(self) -> Self:
        if self.cache is not CacheMode.OFF and not self.builder.has_cache:
            able = " or ".join(each for each in BuilderName if each.has_cache)
            raise ValueError(f"the builder {self.builder} cannot keep a build cache; use {able}, or cache: off")
        return self

    @model_validator(mode="after")
    def _a_prebuilt_image_has_an_address(self) -> Self:
        if (self.builder is BuilderName.PREBUILT) != bool(self.prebuilt):
            raise ValueError(
                "the builder prebuilt requires the parameter prebuilt (a path or URL), and the other way round"
            )
        if self.prebuilt and (CONTROL.search(self.prebuilt) or self.prebuilt.startswith("-")):
            raise ValueError("prebuilt must be a path or URL")
        return self


def _inside(path: str) -> str:
    normal = posixpath.normpath(path.strip() or ".")
    if CONTROL.search(path) or normal.startswith(("/", "-")) or normal.split("/")[0] == "..":
        raise ValueError(f"{path[:200]!r} is not a path inside the source")
    return normal
