"""The manifests of a repository, by tag or digest (distribution-spec, "Pulling manifests" and "Pushing Manifests")."""

import contextlib
import json
from typing import Any

import httpx

from soci_pipeline.errors import InvalidInput, SociPipelineError
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import SHA256, Digest
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES
from soci_pipeline.oci.media_types import MANIFESTS, OCI_INDEX, OCI_MANIFEST
from soci_pipeline.registry import scopes
from soci_pipeline.registry.errors import BlobUnknown, BrokenAnswer, ContentMismatch, ManifestUnknown, RegistryError
from soci_pipeline.registry.operations import OK, Doubt, Operations
from soci_pipeline.registry.referrers import Referrers
from soci_pipeline.registry.transport import Answer, Call, is_size
from soci_pipeline.urls import redacted

_ACCEPT = {"Accept": ", ".join(MANIFESTS)}
# Some servers send a generic type for manifests.
_GENERIC = frozenset({"", "application/json", "application/octet-stream", "text/html", "text/plain"})
_CREATED = 201
_ALGORITHMS = frozenset({SHA256, "sha512"})


class Manifests:
    """The manifests of one registry, by repository and reference."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._referrers = Referrers(operations, self)

    def head(self, repository: str, reference: str | Digest) -> Descriptor | None:
        """Return the descriptor of a manifest by tag or digest, or None if it does not exist."""
        call = self._request("HEAD", repository, reference)
        try:
            answer = self._operations.head(call, doubt=self._may_have_succeeded(repository, reference))
            return _described(answer, reference) or self.get(repository, reference)[0]
        except ManifestUnknown:
            return None

    def get(self, repository: str, reference: str | Digest) -> tuple[Descriptor, bytes]:
        """Return a manifest by tag or digest, verified; raise `ManifestUnknown`, `ContentMismatch`."""
        answer = self._operations.call(
            self._request("GET", repository, reference),
            limit=MAX_MANIFEST_BYTES,
            doubt=self._may_have_succeeded(repository, reference),
        )
        digest = Digest.of(answer.body, reference.algorithm if isinstance(reference, Digest) else SHA256)
        promised = reference if isinstance(reference, Digest) else answer.headers.get("docker-content-digest")
        if promised and promised.startswith("sha256:") and promised != digest:
            raise ContentMismatch(
                f"manifest {promised[:100]} of {repository} has the digest {digest}", url=str(answer.url)
            )
        media_type = _media_type(answer)
        return Descriptor(media_type=media_type, digest=digest, size=len(answer.body)), answer.body

    def put(self, repository: str, reference: str | Digest, data: bytes, media_type: str) -> Descriptor:
        """Push a manifest under a tag or its digest.

        A referrer is also added to the fallback tag if the registry has no referrers API. Raises `BlobUnknown` if the
        registry lacks content that the manifest refers to, `ImmutableTag` if the tag must not move.
        """
        algorithm = reference.algorithm if isinstance(reference, Digest) else SHA256
        descriptor = Descriptor(media_type=media_type, digest=Digest.of(data, algorithm), size=len(data))
        if len(data) > MAX_MANIFEST_BYTES:
            raise InvalidInput(f"a manifest of {len(data)} bytes exceeds the limit of {MAX_MANIFEST_BYTES}")
        if isinstance(reference, Digest) and reference != descriptor.digest:
            raise InvalidInput(f"a manifest with the digest {descriptor.digest} cannot be pushed as {reference}")
        call = Call(
            "PUT",
            self._url(repository, reference),
            scopes.push(repository),
            frozenset({_CREATED, 200, 202, 204}),
            headers={"Content-Type": media_type},
            body=lambda: iter((data,)),
            length=len(data),
        )
        headers = self._put(call, repository, reference, descriptor)
        stored = headers.get("docker-content-digest") or descriptor.digest
        # A registry may return a digest of another algorithm, which cannot be compared.
        is_comparable = stored.partition(":")[0] not in _ALGORITHMS - {algorithm}
        if is_comparable and stored != descriptor.digest:
            raise BrokenAnswer(f"{repository} stored {stored[:100]} instead of {descriptor.digest}")
        self._operations.recent.add(repository, descriptor.digest, str(reference))
        if "oci-subject" not in headers:
            self._referrers.add(repository, descriptor, data)
        return descriptor

    def _put(self, call: Call, repository: str, reference: str | Digest, descriptor: Descriptor) -> httpx.Headers:
        tries = 0

        def is_retryable(error: SociPipelineError) -> bool:
            nonlocal tries
            tries += 1
            return isinstance(error, (BlobUnknown, ManifestUnknown)) and self._operations.recent.has(repository)

        try:
            answer = self._operations.call(call, doubt=is_retryable)
            if answer.status != _CREATED and not self._is_stored(repository, reference, descriptor):
                where = redacted(str(call.url))
                reason = f"{where} answered with status {answer.status} and did not store the manifest"
                raise BrokenAnswer(reason, status=answer.status, url=where)
            return answer.headers
        except RegistryError:
            # An earlier attempt may have succeeded although its response was lost.
            if tries > 1 and self._stands(repository, reference, descriptor):
                return httpx.Headers()
            raise

    def _is_stored(self, repository: str, reference: str | Digest, descriptor: Descriptor) -> bool:
        self._operations.recent.add(repository, str(reference))
        found = self.head(repository, reference)
        return found is not None and found.digest == descriptor.digest

    def _stands(self, repository: str, reference: str | Digest, descriptor: Descriptor) -> bool:
        with contextlib.suppress(SociPipelineError):
            call = self._request("HEAD", repository, reference)
            answer = self._operations.transport.head(call, self._operations.deadline())
            return _described(answer, reference) == descriptor
        return False

    def delete(self, repository: str, reference: str | Digest) -> None:
        """Delete a manifest by digest, with all its tags, or one tag; raise `ManifestUnknown`."""
        # After a deletion, "not found" is final even if the manifest was pushed recently.
        self._operations.recent.forget(repository)
        url = self._url(repository, reference)
        self._operations.call(Call("DELETE", url, scopes.delete(repository), frozenset({202, 200, 204})))

    def _url(self, repository: str, reference: str | Digest) -> httpx.URL:
        return self._operations.url(f"{repository}/manifests/{reference}")

    def _request(self, method: str, repository: str, reference: str | Digest) -> Call:
        return Call(method, self._url(repository, reference), scopes.pull(repository), OK, headers=_ACCEPT)

    def _may_have_succeeded(self, repository: str, reference: str | Digest) -> Doubt:
        recent = self._operations.recent
        return lambda error: isinstance(error, ManifestUnknown) and recent.has(repository, str(reference))


def _described(answer: Answer, reference: str | Digest) -> Descriptor | None:
    size = answer.headers.get("content-length", "")
    digest = answer.headers.get("docker-content-digest") or (reference if isinstance(reference, Digest) else "")
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
    if not is_size(size) or media_type not in MANIFESTS:
        return None
    try:
        found = Digest(digest)
    except InvalidInput:
        return None
    if isinstance(reference, Digest) and found != reference:
        raise ContentMismatch(f"{redacted(str(answer.url))} was answered with {digest[:100]}", url=str(answer.url))
    return Descriptor(media_type=media_type, digest=found, size=int(size))


def _media_type(answer: Answer) -> str:
    served: str = answer.headers.get("content-type", "").partition(";")[0].strip()
    if served in MANIFESTS:
        return served
    try:
        own = json.loads(answer.body).get("mediaType")
    except (ValueError, AttributeError, RecursionError):
        own = None
    if isinstance(own, str) and own:
        return own
    return _kind_of(answer.body, served) if served in _GENERIC else served


def _kind_of(data: bytes, served: str) -> str:
    """Guess the media type from the manifest's fields, for a manifest without one from a server that sends none."""
    try:
        fields: Any = json.loads(data)
        lists, has_config = "manifests" in fields, "config" in fields
    except (ValueError, TypeError, RecursionError):
        return served
    if lists == has_config:
        return served
    return OCI_INDEX if lists else OCI_MANIFEST
