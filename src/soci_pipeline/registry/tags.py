"""The tags of a repository (distribution-spec, "Listing Tags" and "Deleting tags")."""

import json
from typing import Any

from soci_pipeline.registry.errors import BrokenAnswer
from soci_pipeline.registry.manifests import Manifests
from soci_pipeline.registry.operations import Operations
from soci_pipeline.registry.pages import pages
from soci_pipeline.registry.reference import is_tag
from soci_pipeline.registry.transport import Answer
from soci_pipeline.urls import redacted

_MAX_TAGS = 200_000


class Tags:
    """The tags of one registry, by repository. To read or move a tag, use `Manifests`."""

    def __init__(self, operations: Operations, manifests: Manifests) -> None:
        self._operations = operations
        self._manifests = manifests

    def list(self, repository: str) -> tuple[str, ...]:
        """List all tags of a repository; raise `ManifestUnknown` if the repository does not exist."""
        tags: dict[str, None] = {}
        count = 0
        for answer in pages(self._operations, self._operations.url(f"{repository}/tags/list"), repository):
            page = _tags(answer)
            tags |= dict.fromkeys(page)
            count += len(page)
            if count > _MAX_TAGS:
                raise BrokenAnswer(f"{repository} lists more than {_MAX_TAGS} tags", url=str(answer.url))
        return tuple(tags)

    def delete(self, repository: str, tag: str) -> None:
        """Delete one tag; the manifest stays. Some registries do not support it (`RegistryError`, code UNSUPPORTED)."""
        self._manifests.delete(repository, tag)


def _tags(answer: Answer) -> list[str]:
    try:
        document: Any = json.loads(answer.body)
        # For a repository without tags, registries send null or omit the list.
        listed: Any = (document.get("tags") if "name" in document else document["tags"]) or []
        # Skip invalid tags: no reference can name them, and in a URL they would mean something else.
        return [tag for tag in listed if isinstance(tag, str) and is_tag(tag)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        where = redacted(str(answer.url))
        raise BrokenAnswer(f"{where} returned no valid list of tags", url=where) from error
