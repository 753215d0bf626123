"""Parameters of the flow that prunes a repository."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveFloat, field_validator

from soci_pipeline.images.parameters import EXAMPLE
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.retention.prune_plan import CACHE_DAYS, MOST_DAYS, KeepRules
from soci_pipeline.validation import Parameters


def _is_a_repository(reference: ImageReference) -> ImageReference:
    if reference.target is not None:
        raise ValueError(f"{reference} has a tag or digest; use only the repository, and set tags in `keep`")
    return reference


def _digest_alone(name: object) -> object:
    return name.strip().rpartition("@")[2] if isinstance(name, str) else name


UsedDigest = Annotated[Digest, BeforeValidator(_digest_alone)]


class PruneParameters(Parameters):
    """Retention rules for one repository. By default, the run only reports what it would delete."""

    repository: Annotated[ImageReference, AfterValidator(_is_a_repository)] = Field(
        title="Repository",
        description="The image's repository, as registry/repository without a tag.",
        examples=[EXAMPLE],
    )
    keep: tuple[str, ...] = Field(
        default=(), title="Keep these tags", description="Patterns with * and ?.", examples=[["v*", "latest"]]
    )
    keep_latest: NonNegativeInt = Field(
        default=0, title="Keep the newest", description="Number of newest images to keep."
    )
    keep_days: PositiveFloat | None = Field(
        default=None, title="Keep recent images", description="Keep images created in this number of days."
    )
    cache_days: PositiveFloat = Field(
        default=CACHE_DAYS,
        title="Keep build caches",
        description="Days to keep a build cache after its newest layer was built. The rules above apply to images.",
    )
    keep_in_use: tuple[UsedDigest, ...] = Field(
        default=(),
        title="Keep what is in use",
        description="Digests, or references with a digest, that services are running.",
    )
    in_use_ecs: tuple[str, ...] = Field(
        default=(),
        title="Keep what ECS uses",
        description="Keep images used by services and tasks of these ECS clusters (names, ARNs, or * for all).",
        examples=[["production"]],
    )
    consider: tuple[UsedDigest, ...] = Field(
        default=(),
        title="Also consider these digests",
        description="Untagged digests, for example those that an interrupted run left behind.",
    )
    untagged_days: PositiveFloat | None = Field(
        default=None,
        title="Also consider untagged manifests",
        description="ECR only: untagged manifests that were pushed more than this number of days ago.",
    )
    dry_run: bool = Field(
        default=True,
        title="Dry run",
        description="Show what would be deleted, and delete nothing. Turn it off once the plan is right.",
    )

    @field_validator("keep_days", "cache_days", "untagged_days")
    @classmethod
    def _days_are_representable(cls, days: float | None) -> float | None:
        if days is not None and days > MOST_DAYS:
            raise ValueError(f"at most {MOST_DAYS:,} days are allowed")
        return days

    @property
    def untagged_for(self) -> timedelta | None:
        """Minimum age of untagged manifests to consider; None to ignore untagged manifests."""
        return None if self.untagged_days is None else timedelta(days=self.untagged_days)

    def rules(self, in_use: Iterable[Digest] = ()) -> KeepRules:
        """Return the rules, which also keep the digests ``in_use``; raise `InvalidInput` if no rule keeps anything."""
        return KeepRules.of(
            tags=self.keep,
            latest=self.keep_latest,
            younger_than=None if self.keep_days is None else timedelta(days=self.keep_days),
            digests=frozenset((*self.keep_in_use, *in_use)),
            caches_younger_than=timedelta(days=self.cache_days),
        )
