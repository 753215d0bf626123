"""Tag mutability of a repository: the four modes of Amazon ECR. Other registries only have the first."""

import fnmatch
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, field_validator

from soci_pipeline.errors import InvalidInput


class MutabilityMode(StrEnum):
    """Tag mutability modes as named by Amazon ECR (API reference, PutImageTagMutability)."""

    MUTABLE = "MUTABLE"
    IMMUTABLE = "IMMUTABLE"
    MUTABLE_WITH_EXCLUSION = "MUTABLE_WITH_EXCLUSION"
    IMMUTABLE_WITH_EXCLUSION = "IMMUTABLE_WITH_EXCLUSION"


class TagMutability(BaseModel):
    """Tag mutability of one repository. ``filters`` match the excluded tags; ``*`` matches any characters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: MutabilityMode = MutabilityMode.MUTABLE
    filters: tuple[str, ...] = ()

    @field_validator("filters")
    @classmethod
    def _filters_are_tag_characters_and_wildcards(cls, filters: tuple[str, ...]) -> tuple[str, ...]:
        for each in filters:
            if not re.fullmatch(r"[0-9a-zA-Z._*-]{1,128}", each):
                raise ValueError(f"not a valid tag filter: {each[:130]!r}")
        return filters

    @classmethod
    def of(cls, mode: str, filters: Iterable[str] = ()) -> Self:
        """Create it from the settings of an ECR repository; raise `InvalidInput` for an unknown mode or filter."""
        try:
            return cls(mode=MutabilityMode(mode), filters=tuple(filters))
        except ValueError as error:
            raise InvalidInput(f"not a valid tag mutability of a repository: {error!s:.300}") from error

    def allows_moving(self, tag: str) -> bool:
        """Whether the tag may be moved to another digest."""
        excluded = any(_matches(each, tag) for each in self.filters)
        match self.mode:
            case MutabilityMode.MUTABLE:
                return True
            case MutabilityMode.IMMUTABLE:
                return False
            case MutabilityMode.MUTABLE_WITH_EXCLUSION:
                return not excluded
            case MutabilityMode.IMMUTABLE_WITH_EXCLUSION:
                return excluded


def _matches(wildcard: str, tag: str) -> bool:
    # fnmatch does not backtrack over `*`, and filters cannot contain its other wildcards.
    return fnmatch.fnmatchcase(tag, wildcard)
