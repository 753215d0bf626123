"""What a publication is asked for, and what each branch is told: validated once, then frozen.

`PublishRequest` is the parameters of the flow ``publish-image``: what its form shows and a webhook checks. Nothing here
may hold a secret, since parameters are shown in the UI and kept in the database. Secrets are named (a Prefect block, an
ARN) and resolved on the worker.
"""

import posixpath
import re
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from soci_pipeline.aws.secrets import is_secret_arn
from soci_pipeline.builders.builder import BuilderName
from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.address import CONTROL, check_ref, check_url
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.build_cache import DEFAULT_TEMPLATE, CacheMode, CacheTemplate
from soci_pipeline.publish.tag_names import TagNames, check_templates
from soci_pipeline.registry.reference import ImageReference, is_tag
from soci_pipeline.soci.index.records import SociOptions
from soci_pipeline.urls import LOGIN_IN_URL
from soci_pipeline.validation import Parameters
from soci_pipeline.verification.mode import VERIFY_MEANING, VerifyMode

_ARG_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_SECRET_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_BLOCK = re.compile(r"[a-z0-9][a-z0-9-]*/[A-Za-z0-9][A-Za-z0-9_-]*\Z")
_LOOKS_SECRET = re.compile(
    r"(?:^|_)(?:password|passwd|pwd|secret|secrets|token|api_?key|access_?key|private_?key|credentials?)(?:_|$)", re.I
)

_IN_STATEMENT = {"context", "dockerfile", "target", "builder", "toolchain", "soci", "attestations", "platforms"}


class ToolchainName(StrEnum):
    """What indexes it: this library, or containerd and the soci command."""

    NATIVE = "native"
    CONTAINERD = "containerd"


class BuildInputs(Parameters):
    """What decides the bytes of the image; the same for all platforms."""

    context: str = Field(default=".", title="Build context", description="A folder of the source.")
    dockerfile: str = Field(
        default="Dockerfile", title="Dockerfile", description="Its path, starting at the build context."
    )
    target: str | None = Field(
        default=None, title="Build stage", description="The stage to build. Empty: the last one."
    )
    build_args: dict[str, str] = Field(
        default_factory=dict,
        title="Build arguments",
        description="They stay in the image's history, so they must hold no secrets.",
        examples=[{"VERSION": "1.4"}],
    )
    build_secrets: dict[str, str] = Field(
        default_factory=dict,
        title="Build secrets",
        description="From the id of a secret to where it is kept: a Prefect block (secret/npm-token) or an ARN.",
        examples=[{"npm": "secret/npm-token"}],
    )
    source_credentials: str | None = Field(
        default=None,
        title="Source credentials",
        description="For a private source: a Prefect block (secret/git-token) or the ARN of a secret.",
        examples=["secret/git-token"],
    )
    builder: BuilderName = Field(
        default=BuilderName.AUTO,
        title="Builder",
        description="What makes the image. auto: buildx where the worker has it, else its Docker engine.",
    )
    prebuilt: str | None = Field(
        default=None,
        title="Prebuilt image",
        description="For the builder prebuilt alone: path or address of an archive or layout. {platform} in it is "
        "replaced; #ref=NAME at its end chooses one of several images.",
        examples=["https://builds.example.com/web/{platform}.tar"],
    )
    toolchain: ToolchainName = Field(
        default=ToolchainName.NATIVE,
        title="Indexing toolchain",
        description="native: this project's own indexer. containerd: ctr and the soci command of the worker.",
    )
    soci: SociOptions = Field(
        default_factory=SociOptions, title="SOCI index", description="The version of the index, and the sizes."
    )
    attestations: bool = Field(
        default=False, title="Attestations", description="Also publish BuildKit's provenance and SBOM."
    )
    pull: bool = Field(
        default=False,
        title="Newer base images",
        description="Look for newer base images, also where the worker's engine has one; for rebuilds on a schedule.",
    )

    cache: CacheMode = Field(
        default=CacheMode.OFF,
        title="Build cache",
        description="registry: keep the cache of each branch and platform beside the image. It holds the layers of all "
        "stages, readable by everyone who may pull from there.",
    )
    cache_reference: CacheTemplate = Field(
        default=DEFAULT_TEMPLATE,
        title="Place of the build cache",
        description="A template with {image}, {platform} and {ref}, where the tags of the image may not move.",
        examples=["cache.example.com/{image}:{platform}-{ref}"],
    )

    @field_validator("context")
    @classmethod
    def _context_stays_inside_the_source(cls, path: str) -> str:
        return _inside(path)

    @model_validator(mode="after")
    def _dockerfile_stays_inside_the_source(self) -> Self:
        if self.dockerfile.startswith("/"):
            raise ValueError(f"dockerfile {self.dockerfile[:200]!r} is an absolute path; it starts at the context")
        _inside(self.dockerfile_in_source)
        return self

    @property
    def dockerfile_in_source(self) -> str:
        """The Dockerfile's path from the top of the source; `dockerfile` itself is relative to the context."""
        return posixpath.normpath(posixpath.join(self.context, self.dockerfile))

    @property
    def required_files(self) -> tuple[str, ...]:
        """What the commit must have for the build (`BuilderName.needs`)."""
        places = {"context": self.context, "dockerfile": posixpath.join(self.context, self.dockerfile)}
        return tuple(places[name] for name in self.builder.needs)

    @field_validator("target")
    @classmethod
    def _target_is_a_stage(cls, target: str | None) -> str | None:
        if target and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", target):
            raise ValueError(f"{target[:100]!r} is not the name of a build stage")
        return target or None

    @field_validator("build_args")
    @classmethod
    def _build_args_hold_no_secrets(cls, arguments: dict[str, str]) -> dict[str, str]:
        for name, value in arguments.items():
            if not _ARG_NAME.match(name):
                raise ValueError(f"{name[:100]!r} is not the name of a build argument")
            if _LOOKS_SECRET.search(name) or LOGIN_IN_URL.search(value):
                raise ValueError(
                    f"the build argument {name} looks like a secret, and build arguments stay in the image's history; "
                    "use build_secrets"
                )
        return arguments

    @field_validator("build_secrets")
    @classmethod
    def _build_secrets_are_names_of_places(cls, secrets: dict[str, str]) -> dict[str, str]:
        for name, place in secrets.items():
            if not _SECRET_ID.match(name):
                raise ValueError(f"{name[:100]!r} is not an id of a build secret")
            # The value is not shown: whoever misunderstood the parameter may have put the secret itself here.
            if not _is_secret_place(place):
                raise ValueError(
                    f"the build secret {name} must name a Prefect block (secret/npm-token) or the ARN of a secret"
                )
        return secrets

    @field_validator("source_credentials")
    @classmethod
    def _credentials_are_the_name_of_a_place(cls, place: str | None) -> str | None:
        if place and not _is_secret_place(place):
            raise ValueError("source_credentials must name a Prefect block (secret/git-token) or the ARN of a secret")
        return place or None

    @model_validator(mode="after")
    def _the_builder_has_a_cache(self) -> Self:
        if self.cache is not CacheMode.OFF and not self.builder.has_cache:
            able = " or ".join(each for each in BuilderName if each.has_cache)
            raise ValueError(f"the builder {self.builder} cannot keep a build cache; use {able}, or cache: off")
        return self

    @model_validator(mode="after")
    def _a_prebuilt_image_has_an_address(self) -> Self:
        if (self.builder is BuilderName.PREBUILT) != bool(self.prebuilt):
            raise ValueError("the builder prebuilt and the parameter prebuilt (an address) belong together")
        if self.prebuilt and (CONTROL.search(self.prebuilt) or self.prebuilt.startswith("-")):
            raise ValueError("prebuilt is not a path or an address")
        return self


def _is_secret_place(text: str) -> bool:
    return _BLOCK.match(text) is not None or is_secret_arn(text)


def _inside(path: str) -> str:
    normal = posixpath.normpath(path.strip() or ".")
    if CONTROL.search(path) or normal.startswith(("/", "-")) or normal.split("/")[0] == "..":
        raise ValueError(f"{path[:200]!r} is not a path inside the source")
    return normal


def _one_text(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class PublishRequest(BuildInputs):
    """The parameters of one publication."""

    image: ImageReference = Field(
        title="Image",
        description="Where to: registry/repository, without a tag.",
        examples=["123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/web"],
    )
    source: str = Field(
        title="Source",
        description="The git address of what is built.",
        examples=["https://git.example.com/shop/web.git"],
    )
    ref: str | None = Field(
        default=None,
        title="Branch, tag or commit",
        description="Resolved once, for all platforms. Empty: the source's default branch.",
        examples=["main"],
    )
    tags: tuple[str, ...] = Field(
        default=("{short_sha}",),
        title="Tags",
        description="Names such as latest, or templates with {short_sha} {sha} {ref} {date} {version}.",
        examples=[["{short_sha}", "latest"]],
    )
    platforms: tuple[Platform, ...] = Field(
        default=(Platform("linux", "amd64"), Platform("linux", "arm64")),
        title="Platforms",
        description="Each is built on workers of its own kind, side by side.",
    )
    verify: VerifyMode = Field(default=VerifyMode.SAMPLE, title="Verification", description=VERIFY_MEANING)
    platform_tags: bool = Field(
        default=False,
        title="Tags for each platform",
        description="Also tag each platform's own image, as TAG-amd64, for consumers that take no image index.",
    )
    force_tags: bool = Field(
        default=False,
        title="Force tags",
        description="Let an older commit replace a newer one under a mutable tag.",
    )
    worker_wait: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        title="Patience for workers",
        description="How many seconds to wait for a worker of each platform. Empty: what the control machine says.",
    )
    unless_same_as: str | None = Field(
        default=None,
        title="Unless the same as",
        description="Name of a tag. Where it holds the same images already, nothing is published; for a schedule.",
        examples=["nightly"],
    )

    @field_validator("image")
    @classmethod
    def _image_has_no_tag(cls, image: ImageReference) -> ImageReference:
        if image.tag or image.digest:
            raise ValueError(f"{image} has a tag or digest; give the repository alone, and tags in `tags`")
        return image

    @field_validator("tags", mode="before")
    @classmethod
    def _one_tag_may_be_given_alone(cls, tags: Any) -> Any:
        return _one_text(tags)

    @field_validator("tags")
    @classmethod
    def _tags_are_templates(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        if not tags:
            raise ValueError("at least one tag is needed")
        try:
            check_templates(tags)
        except InvalidInput as error:
            raise ValueError(f"{error.reason}. {error.advice or ''}".strip()) from error
        return tags

    @field_validator("unless_same_as")
    @classmethod
    def _what_is_compared_is_a_tag(cls, tag: str | None) -> str | None:
        if tag and not is_tag(tag):
            raise ValueError(f"{tag[:100]!r} is not a tag; templates cannot be compared with, a tag that stays can")
        return tag or None

    @field_validator("source")
    @classmethod
    def _source_is_a_git_address(cls, source: str) -> str:
        try:
            return check_url(source)
        except InvalidInput as error:
            raise ValueError(f"{error.reason}. {error.advice or ''}".strip()) from error

    @field_validator("ref")
    @classmethod
    def _ref_is_a_branch_tag_or_commit(cls, ref: str | None) -> str | None:
        try:
            return check_ref(ref) if ref else None
        except InvalidInput as error:
            raise ValueError(error.reason) from error

    @field_validator("platforms", mode="before")
    @classmethod
    def _one_platform_may_be_given_alone(cls, platforms: Any) -> Any:
        return _one_text(platforms)

    @field_validator("platforms")
    @classmethod
    def _platforms_are_some_and_different(cls, platforms: tuple[Platform, ...]) -> tuple[Platform, ...]:
        if not platforms:
            raise ValueError("at least one platform is needed")
        if any(platform.is_unknown for platform in platforms):
            raise ValueError("unknown/unknown is not a platform to build for")
        plain = [platform.normalised() for platform in platforms]
        twice = sorted({str(platform) for platform in plain if plain.count(platform) > 1})
        if twice:
            raise ValueError(f"given twice: {', '.join(twice)}")
        return tuple(plain)

    def branch(self, platform: Platform, source: ResolvedSource) -> "BranchRequest":
        """What the branch of one platform is told."""
        fields = {name: getattr(self, name) for name in BuildInputs.model_fields}
        if self.soci.reuse_from is None:
            # An image that was published before has most of its layers in common with the next one.
            fields["soci"] = self.soci.model_copy(update={"reuse_from": self._moving_tag})
        return BranchRequest(image=self.image, platform=platform, source=source, **fields)

    def tag_names(self, commit: ResolvedSource, today: date) -> TagNames:
        """The tags that this publication of a commit moves; raises as `TagNames.render`."""
        own = self.platforms if self.platform_tags else ()
        return TagNames.render(self.tags, commit, today, platforms=own)

    def statement_parameters(self) -> dict[str, Any]:
        """The parameters that the provenance statement names, as JSON."""
        return self.model_dump(mode="json", include=_IN_STATEMENT)

    @property
    def _moving_tag(self) -> str | None:
        """The first tag that stays the same from one commit to the next, such as ``latest``."""
        return next((tag for tag in self.tags if "{" not in tag), None)


class BranchRequest(BuildInputs):
    """The work for one platform: one commit, one platform, one repository to push to by digest."""

    image: ImageReference
    platform: Platform
    source: ResolvedSource
