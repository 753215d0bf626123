"""ECR's lifecycle policies, and which of their rules take parts away from a published image.

The children of an image index, SOCI indexes and attestations carry no tag. A rule for untagged images, or for any,
finds them: while a publication has pushed them and not their index yet, and later where only a ``subject`` ties them to
an image. A rule by tag finds an index as a whole; what it leaves without a parent is for `prune-repository`.

Format: ECR user guide, "Lifecycle policy properties in Amazon ECR".
"""

import json
from dataclasses import dataclass
from typing import Any

from soci_pipeline.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class ExpiringTags:
    """Tags that are removed some days after their push, image and all; ``*`` in a pattern stands for any characters."""

    patterns: tuple[str, ...]
    days: int

    def __post_init__(self) -> None:
        if not self.patterns or any(not each.strip("*") for each in self.patterns):
            raise InvalidInput(
                f"not patterns of tags that expire: {', '.join(self.patterns) or 'none'}",
                advice="Name what is short-lived, for example pr-*; a pattern for all would empty the repository.",
            )
        if self.days < 1:
            raise InvalidInput(f"tags cannot expire after {self.days} days", advice="Give a day or more.")


def lifecycle_policy(tags: ExpiringTags) -> str:
    """The policy as JSON, one rule a pattern: patterns in one rule would all have to fit."""
    rules = [
        {
            "rulePriority": number,
            "description": f"{pattern} after {tags.days} days",
            "selection": {
                "tagStatus": "tagged",
                "tagPatternList": [pattern],
                "countType": "sinceImagePushed",
                "countUnit": "days",
                "countNumber": tags.days,
            },
            "action": {"type": "expire"},
        }
        for number, pattern in enumerate(tags.patterns, start=1)
    ]
    return json.dumps({"rules": rules}, separators=(",", ":"))


def rules_that_take_parts(policy: str) -> list[str]:
    """The rules that select images without a tag, each described for a reader; empty where none does.

    Raises `InvalidInput` for what is no lifecycle policy.
    """
    try:
        rules: list[dict[str, Any]] = json.loads(policy)["rules"]
        statuses = [(rule["rulePriority"], rule["selection"]["tagStatus"]) for rule in rules]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput("not a lifecycle policy of ECR", advice="It is JSON with rules.") from error
    return [f"rule {number} ({status})" for number, status in statuses if status in ("untagged", "any")]
