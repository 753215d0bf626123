"""EventBridge events from an SQS queue: they are not signed, so the queue policy decides who may send them.

`soci_pipeline.aws.events` defines the payloads; this module converts them to the receiver's events.
"""

from typing import Literal

from pydantic import Field, HttpUrl, ValidationError

from soci_pipeline.aws.events import CodeCommitEvent, EcrPushEvent, parse_event
from soci_pipeline.errors import InvalidInput
from soci_pipeline.webhook.errors import EventRefused
from soci_pipeline.webhook.events import Event, Ignored, ImageEvent, PushEvent, refuse
from soci_pipeline.webhook.sources import Headers
from soci_pipeline.webhook.sources.source import EventSource

# The SOCI artifacts of an image are pushed by digest or under such fallback tags; they are not images.
_FALLBACK_TAG_PREFIX = "sha256-"


class QueueSource(EventSource):
    """An SQS queue that EventBridge writes to; anyone else who can write to it is trusted too."""

    kind: Literal["sqs"]
    queue_url: HttpUrl
    region: str = Field(pattern=r"^[a-z]{2,4}(-[a-z]+)+-[0-9]$")
    endpoint_url: HttpUrl | None = None
    wait_s: int = Field(default=20, ge=1, le=20)

    def parse(self, headers: Headers, body: bytes) -> Event | Ignored:  # noqa: ARG002 - an SQS message has no headers
        return parse(body)


def parse(body: bytes) -> Event | Ignored:
    """Parse a message of the queue; raise `EventRefused` if it is not an event of CodeCommit or ECR."""
    try:
        found = parse_event(body)
    except InvalidInput as error:
        raise EventRefused(error.reason, advice=error.advice) from error
    try:
        return _push(found) if isinstance(found, CodeCommitEvent) else _image(found)
    except ValidationError as error:
        raise refuse(error) from None


def _push(found: CodeCommitEvent) -> Event | Ignored:
    if found.detail.event == "referenceDeleted" or found.detail.commit_id is None:
        return Ignored(reason="the ref was deleted")
    return PushEvent(
        repository=found.detail.repository_name,
        clone_url=found.clone_url,
        ref=found.detail.reference_full_name,
        commit=found.detail.commit_id,
        paths=None,
    )


def _image(found: EcrPushEvent) -> Event | Ignored:
    if found.detail.result != "SUCCESS":
        return Ignored(reason="the push failed")
    if not found.detail.image_tag:
        return Ignored(reason="pushed by digest")
    if found.detail.image_tag.startswith(_FALLBACK_TAG_PREFIX):
        return Ignored(reason="a fallback tag of referrers")
    return ImageEvent(repository=found.repository, tag=found.detail.image_tag, digest=found.detail.image_digest)
