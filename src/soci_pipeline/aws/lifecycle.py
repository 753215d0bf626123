"""ECR lifecycle policies, and which of their rules remove parts of a published image.

The children of an image index, SOCI indexes and attestations have no tags. A rule for untagged or any images selects
them: during a publication before their index is pushed, and later if only a ``subject`` ties them to an image. A rule
by tag selects an index as a whole; the children that it leaves behind are removed by `prune-repository`.

Format: ECR user guide, "Lifecycle policy properties in Amazon ECR".
"""

import json
from dataclasses import dataclass
from typing import Any

from soci_pipeline.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class ExpiringTags:
    """Tags that expire some days after their push, with their images; ``*`` in a pattern matches any characters."""

    patterns: tuple[str, ...]
    days: int

    def __post_init__(self) -> None:
        if not self.patterns or any(not each.strip("*") for each in self.patterns):
            raise InvalidInput(
                f"not valid patterns for expiring tags: {', '.join(self.patterns) or 'none'}",
                advice="Name short-lived tags, for example pr-*; a pattern that matches everything would empty the "
                "repository.",
            )
        if self.days < 1:
            raise InvalidInput(f"tags cannot expire after {self.days} days", advice="Use at least 1 day.")


def lifecycle_policy(tags: ExpiringTags) -> str:
    """Return the policy as JSON, with one rule per pattern: an image would have to match all patterns of one rule."""
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


def rules_for_untagged(policy: str) -> list[str]:
    """Return a description of each rule that selects untagged images; empty if there is none.

    Raises `InvalidInput` if this is not a lifecycle policy.
    """
    try:
        rules: list[dict[str, Any]] = json.loads(policy)["rules"]
        statuses = [(rule["rulePriority"], rule["selection"]["tagStatus"]) for rule in rules]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput("not a valid ECR lifecycle policy", advice="It must be JSON with `rules`.") from error
    return [f"rule {number} ({status})" for number, status in statuses if status in ("untagged", "any")]
