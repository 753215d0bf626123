"""The registry client: what a publisher needs of the OCI distribution spec, with faults in mind.

One client talks to one registry and may be used by many threads. Every method is one operation under one deadline; what
is temporary is tried again inside it (`ClientSettings`).
"""

import contextlib
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import httpx

from soci_pipeline.errors import InvalidInput, SociPipelineError
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import SHA256, Digest
from soci_pipeline.oci.manifest import MAX_MANIFEST_BYTES
from soci_pipeline.oci.media_types import MANIFESTS, OCI_INDEX, OCI_MANIFEST
from soci_pipeline.registry import download, referrers, scopes
from soci_pipeline.registry.auth import CredentialProvider
from soci_pipeline.registry.connection import connect, is_plain
from soci_pipeline.registry.errors import BlobUnknown, BrokenAnswer, ContentMismatch, ManifestUnknown, RegistryError
from soci_pipeline.registry.reference import is_tag
from soci_pipeline.registry.settings import ClientSettings
from soci_pipeline.registry.transport import Answer, Call, Transport, is_size
from soci_pipeline.registry.upload import Upload
from soci_pipeline.registry.upload_ways import UploadWays
from soci_pipeline.retry import Deadline, with_retries
from soci_pipeline.urls import address, over_tls, redacted

_ACCEPT = {"Accept": ", ".join(MANIFESTS)}
# Some servers do not know what they serve.
_GENERIC = frozenset({"", "application/json", "application/octet-stream", "text/html", "text/plain"})
_OK = frozenset({200})
_CREATED = 201
_ALGORITHMS = frozenset({SHA256, "sha512"})
_MAX_LINK = 8 << 10
_NO_REFERRERS = frozenset({400, 404, 405, 406, 501})
_MAX_PAGES = 1000
_MAX_TAGS = 200_000
_MAX_REFERRERS = 20_000
_PAGE_BYTES = 8 << 20
_LIST_BYTES = 64 << 20
# Quay once sent the URL without its brackets.
_LINK = re.compile(r"\s*(?:<([^<>]{1,4096})>|([^\s<>;]{1,4096}))((?:\s*;[^;,]*)*)(?:,|\Z)")
_IS_NEXT = re.compile(r";\s*rel\s*=\s*[\"']?(?:[^\"';]*\s)?next\b", re.IGNORECASE)


class RegistryClient:
    """A client for one registry (``host[:port]``); repositories are named without the host.

    ``plain_http`` None means https, except on loopback without a ``ca_file``. ``ca_file`` (PEM) is trusted besides the
    system's authorities. ``permissions`` says for ``pull``, ``push`` and ``delete`` how this registry permits it, for
    who lacks it.
    """

    def __init__(
        self,
        registry: str,
        *,
        credentials: CredentialProvider | None = None,
        plain_http: bool | None = None,
        ca_file: Path | None = None,
        settings: ClientSettings | None = None,
        permissions: Mapping[str, str] | None = None,
    ) -> None:
        self.registry = registry
        self.settings = settings or ClientSettings()
        self._transport = Transport(
            registry,
            credentials=credentials,
            plain_http=is_plain(registry, ca_file=ca_file) if plain_http is None else plain_http,
            http=connect(registry, self.settings, ca_file=ca_file),
            settings=self.settings,
            permissions=permissions,
        )
        self._ways = UploadWays(self.settings.part_size)
        self._recent: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ping(self) -> None:
        """Check that a registry answers there and takes the credentials."""
        url = self._transport.base
        try:
            self._call(Call("GET", url, frozenset(), _OK))
        except ManifestUnknown as error:
            raise BrokenAnswer(f"{redacted(str(url))} is no OCI registry (status 404)", url=str(url)) from error

    def head_manifest(self, repository: str, reference: str | Digest) -> Descriptor | None:
        """The descriptor of a manifest by tag or digest; None where there is none."""
        try:
            answer = self._head_manifest(repository, reference)
            return _described(answer, reference) or self.get_manifest(repository, reference)[0]
        except ManifestUnknown:
            return None

    def get_manifest(self, repository: str, reference: str | Digest) -> tuple[Descriptor, bytes]:
        """A manifest by tag or digest, verified; raises `ManifestUnknown`, `ContentMismatch`."""
        answer = self._read_manifest(repository, reference)
        digest = Digest.of(answer.body, reference.algorithm if isinstance(reference, Digest) else SHA256)
        promised = reference if isinstance(reference, Digest) else answer.headers.get("docker-content-digest")
        if promised and promised.startswith("sha256:") and promised != digest:
            raise ContentMismatch(f"manifest {promised[:100]} of {repository} hashes to {digest}", url=str(answer.url))
        media_type = _media_type(answer)
        return Descriptor(media_type=media_type, digest=digest, size=len(answer.body)), answer.body

    def put_manifest(self, repository: str, reference: str | Digest, data: bytes, media_type: str) -> Descriptor:
        """Push a manifest under a tag or its digest; a referrer is listed under the fallback tag where there is no API.

        Raises `BlobUnknown` where the registry misses what it refers to, `ImmutableTag` where the tag may not move.
        """
        algorithm = reference.algorithm if isinstance(reference, Digest) else SHA256
        descriptor = Descriptor(media_type=media_type, digest=Digest.of(data, algorithm), size=len(data))
        if len(data) > MAX_MANIFEST_BYTES:
            raise InvalidInput(f"a manifest of {len(data)} bytes exceeds the {MAX_MANIFEST_BYTES} that registries take")
        if isinstance(reference, Digest) and reference != descriptor.digest:
            raise InvalidInput(f"a manifest that hashes to {descriptor.digest} was to be pushed as {reference}")
        call = Call(
            "PUT",
            self._transport.url(f"{repository}/manifests/{reference}"),
            scopes.push(repository),
            frozenset({_CREATED, 200, 202, 204}),
            headers={"Content-Type": media_type},
            body=lambda: iter((data,)),
            length=len(data),
        )
        headers = self._put(call, repository, reference, descriptor)
        stored = headers.get("docker-content-digest") or descriptor.digest
        # A registry may name a manifest by its own algorithm.
        is_comparable = stored.partition(":")[0] not in _ALGORITHMS - {algorithm}
        if is_comparable and stored != descriptor.digest:
            raise BrokenAnswer(f"{repository} stored {stored[:100]} where {descriptor.digest} was sent")
        self._remember(repository, descriptor.digest, str(reference))
        if "oci-subject" not in headers:
            self._list_referrer(repository, descriptor, data)
        return descriptor

    def _put(self, call: Call, repository: str, reference: str | Digest, descriptor: Descriptor) -> httpx.Headers:
        tries = 0

        def is_worth_another(error: SociPipelineError) -> bool:
            nonlocal tries
            tries += 1
            return isinstance(error, (BlobUnknown, ManifestUnknown)) and self._pushed_lately(repository)

        try:
            answer = self._call(call, doubt=is_worth_another)
            if answer.status != _CREATED and not self._is_stored(repository, reference, descriptor):
                where = redacted(str(call.url))
                reason = f"{where} answered with status {answer.status} and did not store the manifest"
                raise BrokenAnswer(reason, status=answer.status, url=where)
            return answer.headers
        except RegistryError:
            # The answer to an earlier try may have been lost, and what it did stands.
            if tries > 1 and self._stands(repository, reference, descriptor):
                return httpx.Headers()
            raise

    def _is_stored(self, repository: str, reference: str | Digest, descriptor: Descriptor) -> bool:
        self._remember(repository, str(reference))
        found = self.head_manifest(repository, reference)
        return found is not None and found.digest == descriptor.digest

    def _stands(self, repository: str, reference: str | Digest, descriptor: Descriptor) -> bool:
        with contextlib.suppress(SociPipelineError):
            answer = self._transport.head(self._manifest_call("HEAD", repository, reference), self._deadline())
            return _described(answer, reference) == descriptor
        return False

    def delete_manifest(self, repository: str, reference: str | Digest) -> None:
        """Delete a manifest by digest (all its tags go too), or one tag; raises `ManifestUnknown`."""
        url = self._transport.url(f"{repository}/manifests/{reference}")
        # From here on "not found" is meant, whatever was pushed a moment ago.
        with self._lock:
            self._recent = {key: until for key, until in self._recent.items() if key[0] != repository}
        self._call(Call("DELETE", url, scopes.delete(repository), frozenset({202, 200, 204})))

    def delete_tag(self, repository: str, tag: str) -> None:
        """Delete one tag; the manifest stays. Registries may refuse it (`RegistryError`, code UNSUPPORTED)."""
        self.delete_manifest(repository, tag)

    def has_blob(self, repository: str, descriptor: Descriptor) -> bool:
        """Whether the repository has that blob, with that size."""
        url = self._transport.url(f"{repository}/blobs/{descriptor.digest}")
        try:
            answer = self._head(Call("HEAD", url, scopes.pull(repository), _OK))
        except (BlobUnknown, ManifestUnknown):
            return False
        length = answer.headers.get("content-length", "")
        if is_size(length) and int(length) != descriptor.size:
            reason = f"blob {descriptor.digest} of {repository} has {length} bytes, not {descriptor.size}"
            raise ContentMismatch(reason, url=str(url))
        return True

    def read_blob(self, repository: str, descriptor: Descriptor, limit: int = MAX_MANIFEST_BYTES) -> bytes:
        """A small blob, verified; raises `InvalidInput` where its descriptor says more than ``limit`` bytes."""
        if descriptor.size > limit:
            raise InvalidInput(f"blob {descriptor.digest} of {descriptor.size} bytes exceeds the limit of {limit}")
        with self.stream_blob(repository, descriptor) as chunks:
            return b"".join(chunks)

    @contextlib.contextmanager
    def stream_blob(self, repository: str, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """A blob in pieces, resumed on a cut; `ContentMismatch` at the end of the iterator if it was not that blob."""
        chunks = download.stream(self._transport, repository, descriptor, self._deadline(descriptor.size))
        with contextlib.closing(chunks):
            yield chunks

    def read_range(self, repository: str, digest: Digest, start: int, end_exclusive: int) -> bytes:
        """Some bytes of a blob; not verified, since a part has no digest of its own."""
        deadline = self._deadline(end_exclusive - start)
        return with_retries(
            lambda: download.read_range(self._transport, repository, digest, start, end_exclusive, deadline),
            self.settings,
            deadline,
        )

    def upload_blob(
        self,
        repository: str,
        descriptor: Descriptor,
        open_source: Callable[[], BinaryIO],
        *,
        mount_from: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> bool:
        """Bring a blob to a repository; False where it was there or could be mounted from ``mount_from``.

        ``open_source`` opens the local copy, once for each session. ``on_bytes`` gets the bytes sent since its last
        call; a negative number takes back what has to be sent again. Setting ``stop`` ends the upload with `Stopped`.
        """
        deadline = self._deadline(descriptor.size, stop)
        deadline.check()
        if self.has_blob(repository, descriptor):
            return False
        upload = Upload(
            self._transport, repository, descriptor, open_source, deadline, ways=self._ways, on_bytes=on_bytes
        )
        sent = upload.run(mount_from=mount_from)
        self._remember(repository, descriptor.digest)
        return sent

    def upload_bytes(self, repository: str, data: bytes, media_type: str) -> Descriptor:
        """Bring a small blob to a repository, unless it is there; returns its descriptor."""
        descriptor = Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))
        self.upload_blob(repository, descriptor, lambda: io.BytesIO(data))
        return descriptor

    def referrers(self, repository: str, digest: Digest, artifact_type: str | None = None) -> tuple[Descriptor, ...]:
        """The manifests that refer to a digest: by the API, or the fallback tag where there is no API."""
        query = {"artifactType": artifact_type} if artifact_type else {}
        url = self._transport.url(f"{repository}/referrers/{digest}", **query)
        try:
            listed = self._referrer_pages(url, repository)
        except RegistryError as error:
            # A web page or another document with status 200 means that there is no such API either.
            if error.status not in _NO_REFERRERS and not isinstance(error, referrers.NotAList):
                raise
            listed = referrers.read_fallback(self, repository, digest).manifests
        return referrers.of_type(listed, artifact_type)

    def _referrer_pages(self, first: httpx.URL, repository: str) -> tuple[Descriptor, ...]:
        found: list[Descriptor] = []
        for number, answer in enumerate(self._pages(first, repository)):
            try:
                found += referrers.read_page(answer.body, url=str(answer.url))
            except referrers.NotAList as error:
                if number:
                    raise BrokenAnswer(error.reason, url=error.url) from error
                raise
            if len(found) > _MAX_REFERRERS:
                raise BrokenAnswer(f"{redacted(str(first))} lists more than {_MAX_REFERRERS} referrers", url=str(first))
        return tuple(found)

    def list_tags(self, repository: str) -> tuple[str, ...]:
        """Every tag of a repository; raises `ManifestUnknown` where there is no such repository."""
        tags: list[str] = []
        for answer in self._pages(self._transport.url(f"{repository}/tags/list"), repository):
            tags += _tags(answer)
            if len(tags) > _MAX_TAGS:
                raise BrokenAnswer(f"{repository} lists more than {_MAX_TAGS} tags", url=str(answer.url))
        return tuple(dict.fromkeys(tags))

    def _pages(self, first: httpx.URL, repository: str) -> Iterator[Answer]:
        """The pages of a list, all under one deadline."""
        url: httpx.URL | None = first
        seen: set[str] = set()
        deadline, size = self._deadline(), 0
        while url is not None:
            if str(url) in seen or len(seen) >= _MAX_PAGES:
                raise BrokenAnswer(f"{redacted(str(first))} does not come to an end", url=str(first))
            seen.add(str(url))
            answer = self._call(Call("GET", url, scopes.pull(repository), _OK), limit=_PAGE_BYTES, deadline=deadline)
            size += len(answer.body)
            if size > _LIST_BYTES:
                raise BrokenAnswer(f"{redacted(str(first))} lists more than {_LIST_BYTES} bytes", url=str(first))
            yield answer
            following = _next_link(answer.headers.get("link", ""))
            url = address(following, base=answer.url) if following else None
            if following and url is None:
                raise BrokenAnswer(f"{redacted(str(first))} goes on at what is no address", url=str(first))
            url = over_tls(url, self._transport.base) if url else None
            if url is not None and not self._transport.is_own(url):
                raise BrokenAnswer(f"{redacted(str(first))} goes on at another host; not followed", url=str(first))

    def _read_manifest(self, repository: str, reference: str | Digest) -> Answer:
        return self._call(
            self._manifest_call("GET", repository, reference),
            limit=MAX_MANIFEST_BYTES,
            doubt=lambda error: isinstance(error, ManifestUnknown) and self._pushed_lately(repository, str(reference)),
        )

    def _head_manifest(self, repository: str, reference: str | Digest) -> Answer:
        return self._head(
            self._manifest_call("HEAD", repository, reference),
            doubt=lambda error: isinstance(error, ManifestUnknown) and self._pushed_lately(repository, str(reference)),
        )

    def _manifest_call(self, method: str, repository: str, reference: str | Digest) -> Call:
        url = self._transport.url(f"{repository}/manifests/{reference}")
        return Call(method, url, scopes.pull(repository), _OK, headers=_ACCEPT)

    def _list_referrer(self, repository: str, descriptor: Descriptor, data: bytes) -> None:
        found = referrers.subject_of(data, descriptor.media_type)
        if found is not None:
            subject, document = found
            if any(entry.digest == descriptor.digest for entry in self.referrers(repository, subject)):
                return
            referrers.add_to_fallback(self, repository, subject, referrers.entry_of(document, descriptor))

    def _call(
        self,
        call: Call,
        *,
        limit: int = 64 << 10,
        doubt: Callable[[SociPipelineError], bool] = lambda _error: False,
        deadline: Deadline | None = None,
    ) -> Answer:
        end = deadline or self._deadline()
        return with_retries(
            lambda: self._transport.call(call, end, limit=limit),
            self.settings,
            end,
            retriable=lambda error: doubt(error) or error.temporary,
        )

    def _head(self, call: Call, *, doubt: Callable[[SociPipelineError], bool] = lambda _error: False) -> Answer:
        end = self._deadline()
        return with_retries(
            lambda: self._transport.head(call, end),
            self.settings,
            end,
            retriable=lambda error: doubt(error) or error.temporary,
        )

    def _deadline(self, size: int = 0, stop: threading.Event | None = None) -> Deadline:
        return Deadline(self.settings.deadline + size / self.settings.slowest_rate, stop=stop)

    def _remember(self, repository: str, *names: str) -> None:
        now = time.monotonic()
        with self._lock:
            self._recent = {key: until for key, until in self._recent.items() if until > now}
            for name in (*names, ""):
                self._recent[repository, name] = now + self.settings.settle_time

    def _pushed_lately(self, repository: str, name: str = "") -> bool:
        with self._lock:
            return self._recent.get((repository, name), 0.0) > time.monotonic()


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


def _next_link(header: str) -> str | None:
    """The URL of the next page in a Link header (RFC 8288), which may hold several links."""
    links = (match for match in _LINK.finditer(header[:_MAX_LINK]) if _IS_NEXT.search(match.group(3)))
    return next((match.group(1) or match.group(2) for match in links), None)


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
    """The media type of a manifest that neither it nor the server names, by its fields."""
    try:
        fields: Any = json.loads(data)
        lists, has_config = "manifests" in fields, "config" in fields
    except (ValueError, TypeError, RecursionError):
        return served
    if lists == has_config:
        return served
    return OCI_INDEX if lists else OCI_MANIFEST


def _tags(answer: Answer) -> list[str]:
    try:
        document: Any = json.loads(answer.body)
        # A repository without tags: null, or no list at all beside the name.
        listed: Any = (document.get("tags") if "name" in document else document["tags"]) or []
        # What no reference can name is no tag, and would be something else in an address.
        return [tag for tag in listed if isinstance(tag, str) and is_tag(tag)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        where = redacted(str(answer.url))
        raise BrokenAnswer(f"{where} did not answer with a list of tags", url=where) from error
