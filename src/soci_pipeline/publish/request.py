"""The request of a publication and of each branch: validated once, then frozen.

`PublishRequest` has the parameters of the flow ``publish-image``: its form shows them and a webhook checks them.
Nothing here may contain a secret, because parameters are shown in the UI and stored in the database. Secrets are named
(a Prefect block, an ARN) and resolved on the worker.
"""

from datetime import date
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from soci_pipeline.errors import InvalidInput
from soci_pipeline.git.address import check_ref, check_url
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.build_inputs import BuildInputs
from soci_pipeline.publish.tag_names import TagNames, check_templates
from soci_pipeline.registry.reference import ImageReference, is_tag
from soci_pipeline.verification.mode import VERIFY_MEANING, VerifyMode

_IN_STATEMENT = {"context", "dockerfile", "target", "builder", "toolchain", "soci", "attestations", "platforms"}


def _one_text(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class PublishRequest(BuildInputs):
    """The parameters of one publication."""

    image: ImageReference = Field(
        title="Image",
        description="The target: registry/repository, without a tag.",
        examples=["123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop/web"],
    )
    source: str = Field(
        title="Source",
        description="The git URL of the source.",
        examples=["https://git.example.com/shop/web.git"],
    )
    ref: str | None = Field(
        default=None,
        title="Branch, tag or commit",
        description="Resolved once for all platforms. Empty: the source's default branch.",
        examples=["main"],
    )
    tags: tuple[str, ...] = Field(
        default=("{short_sha}",),
        title="Tags",
        description="Tags such as latest, or templates with {short_sha} {sha} {ref} {date} {version}.",
        examples=[["{short_sha}", "latest"]],
    )
    platforms: tuple[Platform, ...] = Field(
        default=(Platform("linux", "amd64"), Platform("linux", "arm64")),
        title="Platforms",
        description="Each platform is built in parallel on workers of its architecture.",
    )
    verify: VerifyMode = Field(default=VerifyMode.SAMPLE, title="Verification", description=VERIFY_MEANING)
    platform_tags: bool = Field(
        default=False,
        title="Tags for each platform",
        description="Also tag each platform's image, for example TAG-amd64, for consumers that do not support an "
        "image index.",
    )
    force_tags: bool = Field(
        default=False,
        title="Force tags",
        description="Allow an older commit to replace a newer one under a mutable tag.",
    )
    worker_wait: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        title="Worker timeout",
        description="Seconds to wait for a worker of each platform. Empty: the setting of the control machine.",
    )
    unless_same_as: str | None = Field(
        default=None,
        title="Skip if unchanged",
        description="Name of a tag. If it already has the same images, nothing is published; for schedules.",
        examples=["nightly"],
    )

    @field_validator("image")
    @classmethod
    def _image_has_no_tag(cls, image: ImageReference) -> ImageReference:
        if image.tag or image.digest:
            raise ValueError(f"{image} has a tag or digest; use only the repository, and set tags in `tags`")
        return image

    @field_validator("tags", mode="before")
    @classmethod
    def _one_tag_may_be_given_alone(cls, tags: Any) -> Any:
        return _one_text(tags)

    @field_validator("tags")
    @classmethod
    def _tags_are_templates(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        if not tags:
            raise ValueError("at least one tag is required")
        try:
            check_templates(tags)
        except InvalidInput as error:
            raise ValueError(f"{error.reason}. {error.advice or ''}".strip()) from error
        return tags

    @field_validator("unless_same_as")
    @classmethod
    def _what_is_compared_is_a_tag(cls, tag: str | None) -> str | None:
        if tag and not is_tag(tag):
            raise ValueError(f"{tag[:100]!r} is not a valid tag; a template is not allowed here")
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
            raise ValueError("at least one platform is required")
        if any(platform.is_unknown for platform in platforms):
            raise ValueError("unknown/unknown is not a platform to build for")
        plain = [platform.normalised() for platform in platforms]
        twice = sorted({str(platform) for platform in plain if plain.count(platform) > 1})
        if twice:
            raise ValueError(f"duplicate: {', '.join(twice)}")
        return tuple(plain)

    def branch(self, platform: Platform, source: ResolvedSource) -> "BranchRequest":
        """Return the request of the branch for one platform."""
        fields = {name: getattr(self, name) for name in BuildInputs.model_fields}
        if self.soci.reuse_from is None:
            # An earlier image shares most of its layers with the next one.
            fields["soci"] = self.soci.model_copy(update={"reuse_from": self._moving_tag})
        kind = LocalBranchRequest if self.secrets_of_this_machine else BranchRequest
        return kind(image=self.image, platform=platform, source=source, **fields)

    def tag_names(self, commit: ResolvedSource, today: date) -> TagNames:
        """Return the tags that this publication of a commit moves; raise as `TagNames.render`."""
        own = self.platforms if self.platform_tags else ()
        return TagNames.render(self.tags, commit, today, platforms=own)

    def statement_parameters(self) -> dict[str, Any]:
        """Return the parameters for the provenance statement, as JSON."""
        return self.model_dump(mode="json", include=_IN_STATEMENT)

    @property
    def _moving_tag(self) -> str | None:
        """Return the first tag that is the same for every commit, such as ``latest``."""
        return next((tag for tag in self.tags if "{" not in tag), None)


class BranchRequest(BuildInputs):
    """The work for one platform: one commit, one platform, one repository to push to by digest."""

    image: ImageReference
    platform: Platform
    source: ResolvedSource


class LocalPublishRequest(PublishRequest):
    """The parameters of a publication from this machine, given by its user."""

    secrets_of_this_machine: ClassVar[bool] = True


class LocalBranchRequest(BranchRequest):
    """The work for one platform of a publication from this machine."""

    secrets_of_this_machine: ClassVar[bool] = True
