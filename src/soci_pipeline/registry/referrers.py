"""What refers to a manifest: the referrers API, and the tag that stands in for it where a registry has none.

distribution-spec, "Listing Referrers" and "Referrers Tag Schema". The tag is a list that every writer reads, changes
and writes back without a lock; so it is read again after each write, and an entry that another writer lost is put
back.
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
    """The part of the client's manifests that the fallback tag needs."""

    def get(self, repository: str, reference: str | Digest) -> tuple[Descriptor, bytes]: ...

    def put(self, repository: str, reference: str | Digest, data: bytes, media_type: str) -> Descriptor: ...


class Referrers:
    """What refers to the manifests of one registry, by repository and digest."""

    def __init__(self, operations: Operations, manifests: ManifestStore) -> None:
        self._operations = operations
        self._manifests = manifests

    def list(self, repository: str, digest: Digest, artifact_type: str | None = None) -> tuple[Descriptor, ...]:
        """The manifests that refer to a digest: by the API, or the fallback tag where there is no API."""
        query = {"artifactType": artifact_type} if artifact_type else {}
        url = self._operations.url(f"{repository}/referrers/{digest}", **query)
        try:
            listed = self._all_pages(url, repository)
        except RegistryError as error:
            # A web page or another document with status 200 means that there is no such API either.
            if error.status not in _WITHOUT_API and not isinstance(error, NotAList):
                raise
            listed = read_fallback(self._manifests, repository, digest).manifests
        return of_type(listed, artifact_type)

    def add(self, repository: str, descriptor: Descriptor, data: bytes) -> None:
        """List a pushed manifest under its subject, if it has one and the registry does not list it by itself."""
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
    """The tag that lists the referrers of a digest: at most 64 of its digits."""
    return f"{subject.algorithm}-{subject.hex[:64]}"


def entry_of(document: ImageManifest | ImageIndex, descriptor: Descriptor) -> Descriptor:
    """A manifest as the list of referrers shows it: with its artifact type and its own annotations."""
    config_type = document.config.media_type if isinstance(document, ImageManifest) else ""
    return Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        annotations=document.annotations,
        artifact_type=document.artifact_type or config_type,
    )


def subject_of(data: bytes, media_type: str) -> tuple[Digest, ImageManifest | ImageIndex] | None:
    """The digest that a manifest refers to, with the document; None where it refers to nothing."""
    try:
        document = parse(data, media_type=media_type)
    except InvalidInput:
        return None
    return None if document.subject is None else (document.subject.digest, document)


def of_type(entries: Iterable[Descriptor], artifact_type: str | None) -> tuple[Descriptor, ...]:
    """The entries of one artifact type, or all."""
    return tuple(entry for entry in entries if artifact_type in (None, entry.artifact_type))


class NotAList(BrokenAnswer):
    """A successful answer that lists nothing: a web page, or a document of another kind. The API is missing."""


def read_page(data: bytes, *, url: str) -> tuple[Descriptor, ...]:
    """The entries of one answer of the referrers API; raises `NotAList`, or `BrokenAnswer` for a list with faults."""
    if not _lists(data):
        raise NotAList(f"{redacted(url)} did not answer with a list of referrers", url=url)
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
    """The list under the fallback tag; an empty one where there is no such tag."""
    try:
        descriptor, data = manifests.get(repository, fallback_tag(subject))
    except ManifestUnknown:
        return ImageIndex()
    if descriptor.digest == subject:
        # GitLab reads the tag as the digest, so it serves the subject itself.
        return ImageIndex()
    try:
        return parse_image_index(data, media_type=descriptor.media_type)
    except InvalidInput as error:
        raise BrokenAnswer(f"tag {fallback_tag(subject)} of {repository} is not a list of referrers") from error


def add_to_fallback(
    manifests: ManifestStore, repository: str, subject: Digest, entry: Descriptor, settings: Attempts
) -> None:
    """Put an entry into the list under the fallback tag and see that it stays there."""
    for attempt in range(_ROUNDS):
        current = read_fallback(manifests, repository, subject)
        if any(listed.digest == entry.digest for listed in current.manifests):
            return
        changed = current.replaced(manifests=(*current.manifests, entry))
        manifests.put(repository, fallback_tag(subject), changed.encode(), changed.media_type)
        # Another writer that read before this one wrote needs a moment to do its damage.
        time.sleep(settings.backoff(attempt))
    if all(listed.digest != entry.digest for listed in read_fallback(manifests, repository, subject).manifests):
        raise RegistryError(
            f"{entry.digest} does not stay in the list of referrers of {subject} in {repository}: others overwrite it",
            temporary=True,
        )
