"""Blob uploads: mount, one streamed PUT, or resumable parts (distribution-spec, "Pushing blobs").

A blob is never held in memory. After an error, the client requests the session's offset from the registry; if the
offset does not match what was sent, or the registry rejects the session, a new one is opened. If a registry rejects
parts or large requests, the blob is sent in another way (`soci_pipeline.registry.upload_ways`).
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote

import httpx

from soci_pipeline.errors import DamagedContent, SociPipelineError
from soci_pipeline.log import logger
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.errors import BlobUnknown, BrokenAnswer, RegistryError, UploadUnknown
from soci_pipeline.registry.scopes import pull, push
from soci_pipeline.registry.transport import Answer, Call, Transport
from soci_pipeline.registry.upload_ways import NOT_SUPPORTED, TOO_LARGE, RegistryAccess, UploadWays
from soci_pipeline.retry import Deadline, with_retries
from soci_pipeline.urls import redacted

_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})\Z")
_SESSION_ID = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9_.=-]{0,255}\Z")
_CANCEL_SECONDS = 5.0
# Pulp returns 204 for a part, Amazon ECR 201.
_PART_TAKEN = frozenset({200, 201, 202, 204})
_STORED = frozenset({201, 204})
_MAYBE_STORED = frozenset({200, 202})
# Nexus returns these for a blob that another client has just uploaded.
_CONFLICT = frozenset({400, 409})
_OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(slots=True)
class _Session:
    """An open upload session: the URL for the next request and the number of bytes received."""

    url: httpx.URL
    part_size: int | None
    offset: int = 0


class Upload:
    """Upload of one blob to one repository.

    ``on_bytes`` receives the change in bytes sent; it is negative if bytes must be sent again.
    """

    def __init__(
        self,
        transport: Transport,
        repository: str,
        descriptor: Descriptor,
        open_source: Callable[[], BinaryIO],
        deadline: Deadline,
        *,
        ways: UploadWays | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        self._transport = transport
        self._settings = transport.settings
        self._repository = repository
        self._descriptor = descriptor
        self._open_source = open_source
        self._deadline = deadline
        self._ways = ways or UploadWays(self._settings.part_size)
        self._on_bytes = on_bytes
        self._reported = 0
        self._tried = False
        self._exhausted = False
        self._rejected = False
        self._lost_sessions = 0

    def run(self, *, mount_from: str | None = None) -> bool:
        """Upload the blob; return False if it was mounted and no byte had to be sent."""
        return with_retries(
            lambda: self._one_session(mount_from), self._settings, self._deadline, retriable=self._wants_new_session
        )

    def probe_session(self) -> bool:
        """Open a session and cancel it without sending anything; return whether the registry cancelled it."""
        session = self._session(self._post(), RegistryAccess(None))
        return self._cancel(session)

    def _one_session(self, mount_from: str | None) -> bool:
        # The registry may have stored the blob although its response was lost.
        if self._tried and self._is_there():
            self._report(self._descriptor.size)
            return True
        way = self._ways.choose(self._descriptor.size) or RegistryAccess(None)
        session = self._start(mount_from, way)
        if session is None:
            return False
        self._tried = True
        try:
            with self._open_source() as source:
                self._send(source, session)
        except BaseException:
            self._cancel(session)
            self._report(0)
            raise
        return True

    def _wants_new_session(self, error: SociPipelineError) -> bool:
        if self._rejected:
            self._rejected = False
            return self._ways.choose(self._descriptor.size) is not None
        if isinstance(error, UploadUnknown):
            return True
        if error.temporary:
            # The retries of one part are used up; a new session would only multiply them.
            return not self._exhausted
        if isinstance(error, RegistryError) and error.code == "DIGEST_INVALID":
            # Either the local file is damaged, or the bytes were damaged (or duplicated by a resume) in transit.
            with self._open_source() as source:
                found = Digest.of_stream(source, self._descriptor.digest.algorithm)
            if found != self._descriptor.digest:
                raise DamagedContent(f"the local copy of {self._descriptor.digest} has the digest {found}") from error
            return True
        return False

    def _start(self, mount_from: str | None, way: RegistryAccess) -> _Session | None:
        if mount_from is not None and mount_from != self._repository:
            with contextlib.suppress(RegistryError):
                answer = self._post(mount=str(self._descriptor.digest), source=mount_from)
                is_mounted = answer.status == 201 or (answer.status == 200 and self._is_there())
                return None if is_mounted else self._session(answer, way)
        return self._session(self._post(), way)

    def _post(self, *, mount: str = "", source: str = "") -> Answer:
        path = f"{self._repository}/blobs/uploads/"
        url = self._transport.url(path, mount=mount, **{"from": source}) if mount else self._transport.url(path)
        scopes = push(self._repository) | (pull(source) if source else frozenset())
        return self._transport.call(Call("POST", url, scopes, frozenset({200, 201, 202})), self._deadline)

    def _session(self, answer: Answer, way: RegistryAccess) -> _Session:
        size = way.part_size
        least = answer.headers.get("oci-chunk-min-length", "")
        if size is not None and least.isdecimal() and len(least) < 16:
            size = max(size, int(least))
        return _Session(self._session_url(answer), size)

    def _session_url(self, answer: Answer) -> httpx.URL:
        """Return the Location of a session; without one, build the URL from the session's id as in the spec."""
        identifier = answer.headers.get("docker-upload-uuid", "")
        if "location" not in answer.headers and _SESSION_ID.match(identifier):
            return self._transport.url(f"{self._repository}/blobs/uploads/{identifier}")
        return self._transport.location(answer.headers, answer.url)

    def _send(self, source: BinaryIO, session: _Session) -> None:
        size = self._descriptor.size
        if session.part_size is None:
            self._send_whole(source, session)
            return
        while session.offset < size:
            self._send_part(source, session, session.part_size)
        self._with_retries(lambda: self._close(session, source))

    def _send_whole(self, source: BinaryIO, session: _Session) -> None:
        size = self._descriptor.size
        try:
            self._put(session, source, size)
        except RegistryError as error:
            if error.status in (405, 501):
                self._ways.reject_whole()
                self._rejected = True
            elif error.status == 413:
                self._ways.reject_whole(size)
                self._rejected = True
            raise

    def _with_retries(self, work: Callable[[], None], *, is_settled: Callable[[], bool] = lambda: False) -> None:
        # 416: the session exists with another offset, so read its offset and retry before giving it up.
        try:
            with_retries(
                work,
                self._settings,
                self._deadline,
                retriable=lambda error: error.temporary or (_status(error) == 416 and not is_settled()),
            )
        except SociPipelineError as error:
            self._exhausted = error.temporary
            raise

    def _send_part(self, source: BinaryIO, session: _Session, size: int) -> None:
        low, high = session.offset, min(session.offset + size, self._descriptor.size)
        failures: list[SociPipelineError] = []
        is_settled = False

        def work() -> None:
            nonlocal is_settled
            if failures:
                before, session.offset = session.offset, self._check_offset(session, low, high)
                if _status(failures[-1]) == 416 and session.offset == before:
                    # The offset was correct, so the registry would reject the part again.
                    is_settled = True
                    raise failures[-1]
            if session.offset < high:
                try:
                    self._patch(session, source, high)
                except SociPipelineError as error:
                    failures.append(error)
                    raise

        try:
            self._with_retries(work, is_settled=lambda: is_settled)
        except SociPipelineError as error:
            self._record_rejection(failures or [error], session, high - low)
            raise
        session.offset = high

    def _record_rejection(self, failures: list[SociPipelineError], session: _Session, part: int) -> None:
        """After a failed part, record whether the registry rejects its size, or parts in general."""
        status = _status(failures[-1])
        self._lost_sessions += status in (404, 416)
        # After a temporary error (ECR then returns 416) or in mid-upload, a lost session is more likely than a rejected
        # part. The second time, assume that the part was rejected.
        is_clear = session.offset == 0 and not any(error.temporary for error in failures)
        is_rejected = is_clear or self._lost_sessions > 1
        if status == 413 or (status in TOO_LARGE and is_rejected):
            self._ways.reject_parts(part)
        elif status in (405, 501) or (status in NOT_SUPPORTED and is_rejected):
            self._ways.reject_parts()
        else:
            return
        self._rejected = True

    def _patch(self, session: _Session, source: BinaryIO, high: int) -> None:
        headers = _OCTETS | {"Content-Range": f"{session.offset}-{high - 1}"}
        answer = self._transport.call(
            Call(
                "PATCH",
                session.url,
                push(self._repository),
                _PART_TAKEN,
                headers=headers,
                body=lambda: self._bytes(source, session.offset, high),
                length=high - session.offset,
            ),
            self._deadline,
        )
        # Ignore the Range of the response: ECR's is unreliable, and the digest is checked at the end.
        self._moved(session, answer)

    def _check_offset(self, session: _Session, low: int, high: int) -> int:
        answer = self._status_of(session)
        match = _RANGE.match(answer.headers.get("range", ""))
        end = int(match.group(1)) if match else -1
        # `0-0` means no bytes as well as one byte; assume none.
        taken = 0 if end <= 0 else end + 1
        if taken == high + 1:
            # More than was sent: this registry's range end is exclusive.
            taken = high
        if not low <= taken <= high:
            raise UploadUnknown(
                f"{redacted(str(session.url))} reports {taken} bytes; {low} to {high} are possible",
                url=str(session.url),
            )
        self._moved(session, answer)
        return taken

    def _status_of(self, session: _Session) -> Answer:
        """Request a session's status; raise `UploadUnknown` if the registry does not support it (Pulp)."""
        call = Call("GET", session.url, push(self._repository), frozenset({200, 202, 204}))
        try:
            return self._transport.call(call, self._deadline)
        except RegistryError as error:
            if error.temporary or error.status not in (400, 405, 501):
                raise
            raise UploadUnknown(error.reason, code=error.code, status=error.status, url=error.url) from error

    def _moved(self, session: _Session, answer: Answer) -> None:
        if "location" in answer.headers:
            session.url = self._transport.location(answer.headers, answer.url)

    def _close(self, session: _Session, source: BinaryIO) -> None:
        try:
            self._put(session, source, 0)
        except SociPipelineError as error:
            if (error.temporary or isinstance(error, UploadUnknown)) and self._is_there():
                return
            raise

    def _put(self, session: _Session, source: BinaryIO, length: int) -> None:
        try:
            answer = self._finish(session, source, length)
        except RegistryError as error:
            if error.status in _CONFLICT and not error.temporary and self._is_there():
                self._cancel(session)
                return
            raise
        if answer.status in _MAYBE_STORED and not self._is_there():
            where = redacted(str(answer.url))
            raise UploadUnknown(f"{where} answered with status {answer.status} and did not store the blob", url=where)

    def _finish(self, session: _Session, source: BinaryIO, length: int) -> Answer:
        mark = b"&" if session.url.query else b""
        digest = quote(self._descriptor.digest, safe="").encode()
        url = session.url.copy_with(query=session.url.query + mark + b"digest=" + digest)
        answer = self._transport.call(
            Call(
                "PUT",
                url,
                push(self._repository),
                _STORED | _MAYBE_STORED,
                headers=_OCTETS,
                body=(lambda: self._bytes(source, 0, length)) if length else None,
                length=length,
            ),
            self._deadline,
        )
        stored = answer.headers.get("docker-content-digest") or self._descriptor.digest
        if stored != self._descriptor.digest:
            where = redacted(str(url))
            raise BrokenAnswer(f"{where} stored {stored[:100]} instead of {self._descriptor.digest}", url=where)
        return answer

    def _bytes(self, source: BinaryIO, start: int, end: int) -> Iterator[bytes]:
        source.seek(start)
        position = start
        while position < end:
            chunk = source.read(min(self._settings.read_size, end - position))
            if not chunk:
                digest, size = self._descriptor.digest, self._descriptor.size
                raise DamagedContent(f"the local copy of {digest} ends after {position} of {size} bytes")
            self._deadline.check()
            yield chunk
            position += len(chunk)
            self._report(position)

    def _is_there(self) -> bool:
        url = self._transport.url(f"{self._repository}/blobs/{self._descriptor.digest}")
        try:
            self._transport.head(Call("HEAD", url, push(self._repository), frozenset({200})), self._deadline)
        except BlobUnknown:
            return False
        except RegistryError as error:
            if error.temporary:
                return False
            raise
        return True

    def _cancel(self, session: _Session) -> bool:
        call = Call("DELETE", session.url, push(self._repository), frozenset({202, 204, 404}))
        try:
            self._transport.call(call, Deadline(_CANCEL_SECONDS))
        except SociPipelineError as error:
            logger().debug("cannot cancel an upload session: %s", error.reason)
            return False
        return True

    def _report(self, position: int) -> None:
        if self._on_bytes is not None and position != self._reported:
            self._on_bytes(position - self._reported)
        self._reported = position


def _status(error: SociPipelineError) -> int:
    return error.status if isinstance(error, RegistryError) else 0
