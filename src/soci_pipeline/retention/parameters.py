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
        raise ValueError(f"{reference} has a tag or digest; give the repository alone, and tags in `keep`")
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
        default=0, title="Keep the newest", description="So many of the newest images stay."
    )
    keep_days: PositiveFloat | None = Field(
        default=None, title="Keep the young", description="Images created in the last so many days stay."
    )
    cache_days: PositiveFloat = Field(
        default=CACHE_DAYS,
        title="Keep build caches",
        description="So many days after its newest layer was built a build cache goes. The rules above are for images.",
    )
    keep_in_use: tuple[UsedDigest, ...] = Field(
        default=(), title="Keep what is in use", description="Digests, or references with one, that services run now."
    )
    in_use_ecs: tuple[str, ...] = Field(
        default=(),
        title="Keep what ECS uses",
        description="ECS clusters (names, ARNs, or * for all): what their services and tasks use stays.",
        examples=[["production"]],
    )
    consider: tuple[UsedDigest, ...] = Field(
        default=(),
        title="Look at these too",
        description="Untagged digests, for example what a run that was cut short has left.",
    )
    untagged_days: PositiveFloat | None = Field(
        default=None,
        title="Look at untagged ones too",
        description="In ECR alone: manifests without a tag that were pushed more than so many days ago.",
    )
    dry_run: bool = Field(
        default=True,
        title="Dry run",
        description="Say what would go, and delete nothing. Switch it off when the plan is right.",
    )

    @field_validator("keep_days", "cache_days", "untagged_days")
    @classmethod
    def _days_are_representable(cls, days: float | None) -> float | None:
        if days is not None and days > MOST_DAYS:
            raise ValueError(f"more than {MOST_DAYS:,} days cannot be meant")
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
