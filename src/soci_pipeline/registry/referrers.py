"""Referrers of a manifest: the referrers API, and the fallback tag for registries without it.

distribution-spec, "Listing Referrers" and "Referrers Tag Schema". All writers read, modify and write the list under the
fallback tag without a lock. Therefore it is read again after each write, and an entry that another writer has
overwritten is added again.
"""

import json
import time
from collections.abc import Iterable
from typing import Protocol

import httpx

from soci_pipeline.errors import InvalidInput
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest, parse, parse_image_index
from soci_pipeline.oci.media_types import OCI_INDEX
from soci_pipeline.registry.errors import BrokenAnswer, ManifestUnknown, RegistryError
from soci_pipeline.registry.operations import Operations
from soci_pipeline.registry.pages import pages
from soci_pipeline.retry import Attempts
from soci_pipeline.urls import redacted

_ROUNDS = 8
_MAX_REFERRERS = 20_000
_WITHOUT_API = frozenset({400, 404, 405, 406, 501})


class ManifestStore(Protocol):
    """The methods of `Manifests` that the fallback tag needs."""

    def get(self, repository: str, reference: str | Digest) -> tuple[Descriptor, bytes]: ...

    def put(self, repository: str, reference: str | Digest, data: bytes, media_type: str) -> Descriptor: ...


class Referrers:
    """The referrers of the manifests in one registry, by repository and digest."""

    def __init__(self, operations: Operations, manifests: ManifestStore) -> None:
        self._operations = operations
        self._manifests = manifests

    def list(self, repository: str, digest: Digest, artifact_type: str | None = None) -> tuple[Descriptor, ...]:
        """List the manifests that refer to a digest, with the API, or the fallback tag if there is no API."""
        query = {"artifactType": artifact_type} if artifact_type else {}
        url = self._operations.url(f"{repository}/referrers/{digest}", **query)
        try:
            listed = self._all_pages(url, repository)
        except RegistryError as error:
            # Status 200 with an HTML page or another document also means that there is no such API.
            if error.status not in _WITHOUT_API and not isinstance(error, NotAList):
                raise
            listed = read_fallback(self._manifests, repository, digest).manifests
        return of_type(listed, artifact_type)

    def add(self, repository: str, descriptor: Descriptor, data: bytes) -> None:
        """Add a pushed manifest to the fallback tag of its subject, unless it has no subject or is already listed."""
        found = subject_of(data, descriptor.media_type)
        if found is None:
            return
        subject, document = found
        if any(entry.digest == descriptor.digest for entry in self.list(repository, subject)):
            return
        entry = entry_of(document, descriptor)
        add_to_fallback(self._manifests, repository, subject, entry, self._operations.settings)

    def _all_pages(self, first: httpx.URL, repository: str) -> tuple[Descriptor, ...]:
        found: tuple[Descriptor, ...] = ()
        for number, answer in enumerate(pages(self._operations, first, repository)):
            try:
                found += read_page(answer.body, url=str(answer.url))
            except NotAList as error:
                if number:
                    raise BrokenAnswer(error.reason, url=error.url) from error
                raise
            if len(found) > _MAX_REFERRERS:
                raise BrokenAnswer(f"{redacted(str(first))} lists more than {_MAX_REFERRERS} referrers", url=str(first))
        return found


def fallback_tag(subject: Digest) -> str:
    """Return the fallback tag that lists the referrers of a digest, with at most 64 digits of it."""
    return f"{subject.algorithm}-{subject.hex[:64]}"


def entry_of(document: ImageManifest | ImageIndex, descriptor: Descriptor) -> Descriptor:
    """Return a manifest's entry in a list of referrers, with its artifact type and annotations."""
    config_type = document.config.media_type if isinstance(document, ImageManifest) else ""
    return Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        annotations=document.annotations,
        artifact_type=document.artifact_type or config_type,
    )


def subject_of(data: bytes, media_type: str) -> tuple[Digest, ImageManifest | ImageIndex] | None:
    """Return the digest of a manifest's subject and the parsed manifest, or None if it has no subject or is invalid."""
    try:
        document = parse(data, media_type=media_type)
    except InvalidInput:
        return None
    return None if document.subject is None else (document.subject.digest, document)


def of_type(entries: Iterable[Descriptor], artifact_type: str | None) -> tuple[Descriptor, ...]:
    """Return the entries of one artifact type, or all if it is None."""
    return tuple(entry for entry in entries if artifact_type in (None, entry.artifact_type))


class NotAList(BrokenAnswer):
    """A successful response that is not a list of referrers, for example an HTML page: there is no referrers API."""


def read_page(data: bytes, *, url: str) -> tuple[Descriptor, ...]:
    """Parse one response of the referrers API; raise `NotAList`, or `BrokenAnswer` for an invalid list."""
    if not _lists(data):
        raise NotAList(f"{redacted(url)} returned no valid list of referrers", url=url)
    try:
        return parse_image_index(data, media_type=OCI_INDEX).manifests
    except InvalidInput as error:
        raise BrokenAnswer(f"the registry's list of referrers is not an image index: {error.reason}") from error


def _lists(data: bytes) -> bool:
    try:
        return "manifests" in json.loads(data)
    except (ValueError, TypeError, RecursionError):
        return False


def read_fallback(manifests: ManifestStore, repository: str, subject: Digest) -> ImageIndex:
    """Return the list under the fallback tag, empty if there is no such tag; raise `BrokenAnswer` if it is invalid."""
    try:
        descriptor, data = manifests.get(repository, fallback_tag(subject))
    except ManifestUnknown:
        return ImageIndex()
    if descriptor.digest == subject:
        # GitLab resolves the fallback tag as a digest, so it returns the subject itself.
        return ImageIndex()
    try:
        return parse_image_index(data, media_type=descriptor.media_type)
    except InvalidInput as error:
        raise BrokenAnswer(f"tag {fallback_tag(subject)} of {repository} is not a list of referrers") from error


def add_to_fallback(
    manifests: ManifestStore, repository: str, subject: Digest, entry: Descriptor, settings: Attempts
) -> None:
    """Add an entry to the list under the fallback tag, again if another writer overwrites it.

    Raises a temporary `RegistryError` if the entry is still missing after the last attempt.
    """
    for attempt in range(_ROUNDS):
        current = read_fallback(manifests, repository, subject)
        if any(listed.digest == entry.digest for listed in current.manifests):
            return
        changed = current.replaced(manifests=(*current.manifests, entry))
        manifests.put(repository, fallback_tag(subject), changed.encode(), changed.media_type)
        # Another writer may have read the old list and may overwrite this one, so wait before the next check.
        time.sleep(settings.backoff(attempt))
    if all(listed.digest != entry.digest for listed in read_fallback(manifests, repository, subject).manifests):
        raise RegistryError(
            f"{entry.digest} does not stay in the list of referrers of {subject} in {repository}, because others "
            "overwrite it",
            temporary=True,
        )
