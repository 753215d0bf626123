"""Endpoints of the embedded registry for blobs and uploads."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import BinaryIO

from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.server.answers import Refusal, empty
from soci_pipeline.registry.server.exchange import Exchange, digest_of
from soci_pipeline.registry.server.files import full_disk_reported
from soci_pipeline.registry.server.repository import Repository
from soci_pipeline.registry.server.uploads import Session

_READ = 1 << 20
_BYTES = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")
_PART = re.compile(r"(?:bytes )?(\d{1,18})-(\d{1,18})(?:/(?:\d{1,18}|\*))?\Z")


async def read(exchange: Exchange) -> Response:
    """Return a blob or one range of it (RFC 9110, section 14), for GET and HEAD ("Pulling blobs")."""
    digest = digest_of(exchange.target)
    repository = exchange.existing()
    size = None if repository is None else repository.blob_size(digest)
    if repository is None or size is None:
        raise Refusal("BLOB_UNKNOWN", f"{exchange.name} has no blob {digest}")
    headers = {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
    }
    start, end, status = _range(exchange.request.headers.get("range"), size)
    headers["Content-Length"] = str(end - start)
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    if exchange.request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    body = _pieces(partial(repository.open_blob, digest), start, end)
    return _Pieces(body, status_code=status, headers=headers)


async def delete(exchange: Exchange) -> Response:
    """Delete a blob ("Content Management", deleting blobs)."""
    await asyncio.to_thread(_delete, exchange, digest_of(exchange.target))
    return empty(202)


def _delete(exchange: Exchange, digest: Digest) -> None:
    repository = exchange.repository()
    if repository.manifest(digest) is not None:
        raise Refusal("UNSUPPORTED", f"{digest} is a manifest; delete it as a manifest")
    if not repository.delete_blob(digest):
        raise Refusal("BLOB_UNKNOWN", f"{exchange.name} has no blob {exchange.target}")


async def start(exchange: Exchange) -> Response:
    """Open an upload session, mount a blob from another repository, or store a whole blob ("Pushing blobs")."""
    query = exchange.request.query_params
    if "mount" in query:
        mounted = await asyncio.to_thread(_mount, exchange, digest_of(query["mount"]), query.get("from", ""))
        if mounted is not None:
            return mounted
    digest = digest_of(query["digest"]) if "digest" in query else None
    await asyncio.to_thread(exchange.site.storage.reap)
    session = exchange.site.uploads.start(exchange.created())
    if digest is not None:
        return await _finish(exchange, session, digest)
    return _accepted(exchange, session)


async def status(exchange: Exchange) -> Response:
    """Return the offset of an upload ("Pushing a blob in chunks")."""
    session = exchange.site.uploads.find(exchange.existing(), exchange.target)
    await session.settle()
    return _accepted(exchange, session, status=204)


async def patch(exchange: Exchange) -> Response:
    """Append a part to an upload ("Pushing a blob in chunks").

    A Content-Range must start at the upload's offset; otherwise the status is 416.
    """
    session = exchange.site.uploads.find(exchange.existing(), exchange.target)
    await _check_part(exchange, session)
    await exchange.site.uploads.append(session, exchange.request.stream())
    return _accepted(exchange, session)


async def put(exchange: Exchange) -> Response:
    """Complete an upload, with its last bytes or none ("Pushing blobs")."""
    session = exchange.site.uploads.find(exchange.existing(), exchange.target)
    wanted = exchange.request.query_params.get("digest")
    if wanted is None:
        raise Refusal("DIGEST_INVALID", "the digest parameter is missing")
    digest = digest_of(wanted)
    await _check_part(exchange, session)
    return await _finish(exchange, session, digest)


async def cancel(exchange: Exchange) -> Response:
    """Cancel an upload ("Pushing blobs")."""
    session = exchange.site.uploads.find(exchange.existing(), exchange.target)
    await session.settle()
    exchange.site.uploads.forget(session)
    return empty(204)


def _mount(exchange: Exchange, digest: Digest, source: str) -> Response | None:
    donor = _donor(exchange, digest, source)
    size = None if donor is None else donor.blob_size(digest)
    if donor is None or size is None:
        return None
    descriptor = Descriptor(media_type="application/octet-stream", digest=digest, size=size)
    created = exchange.created()
    with full_disk_reported(created.layout.path):
        created.layout.link_from(donor.layout, descriptor)
    return _created(exchange, digest)


def _donor(exchange: Exchange, digest: Digest, source: str) -> Repository | None:
    """Return the repository to mount a blob from, or None if there is none that the client may read.

    Without a source in the request, it is any repository that has the blob, if `ServerSettings.automatic_mount` is set.
    """
    storage = exchange.site.storage
    if source:
        return storage.repository(source) if exchange.may_read(source) else None
    return storage.holder_of(digest, readable=exchange.may_read) if exchange.site.settings.automatic_mount else None


async def _finish(exchange: Exchange, session: Session, digest: Digest) -> Response:
    await exchange.site.uploads.append(session, exchange.request.stream())
    try:
        await session.finish(digest)
    finally:
        exchange.site.uploads.forget(session)
    return _created(exchange, digest)


async def _check_part(exchange: Exchange, session: Session) -> None:
    taken = await session.settle()
    length = exchange.request.headers.get("content-length", "")
    text = exchange.request.headers.get("content-range")
    if text is None:
        return
    match = _PART.match(text)
    if match is None:
        raise Refusal("BLOB_UPLOAD_INVALID", f"not a valid byte range: {text[:100]!r}")
    first, final = int(match[1]), int(match[2])
    if length.isdecimal() and int(length) != final - first + 1:
        raise Refusal("SIZE_INVALID", f"{length} bytes do not match the range {text}")
    if first != taken:
        headers = _place(exchange, session)
        raise Refusal("BLOB_UPLOAD_INVALID", f"the upload continues at byte {taken}", status=416, headers=headers)


def _place(exchange: Exchange, session: Session) -> dict[str, str]:
    return {
        "Location": f"/v2/{exchange.name}/blobs/uploads/{session.name}",
        "Range": f"0-{max(0, session.offset - 1)}",
        "Docker-Upload-UUID": session.name,
    }


def _accepted(exchange: Exchange, session: Session, *, status: int = 202) -> Response:
    return empty(status, **_place(exchange, session))


def _created(exchange: Exchange, digest: Digest) -> Response:
    location = f"/v2/{exchange.name}/blobs/{digest}"
    return empty(201, Location=location, Docker_Content_Digest=digest)


def _range(header: str | None, size: int) -> tuple[int, int, int]:
    match = _BYTES.match(header or "")
    if match is None or (not match[1] and not match[2]):
        # A server may ignore other units and multiple ranges (RFC 9110, section 14.2).
        return 0, size, 200
    if not match[1]:
        first, end = max(0, size - int(match[2])), size
    else:
        first, end = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)
    if first >= end:
        raise Refusal(
            "SIZE_INVALID",
            f"no such range in {size} bytes",
            status=416,
            headers={"Content-Range": f"bytes */{size}"},
        )
    return first, end, 206


class _Pieces(StreamingResponse):
    """Closes its source when the client disconnects, instead of leaving that to the garbage collector."""

    body_iterator: AsyncGenerator[bytes, None]

    async def stream_response(self, send: Send) -> None:
        async with contextlib.aclosing(self.body_iterator):
            await super().stream_response(send)


async def _pieces(opened: Callable[[], BinaryIO], start: int, end: int) -> AsyncGenerator[bytes, None]:
    # Do not open the file in a thread: if the request is cancelled meanwhile, the open file would leak.
    with opened() as file:
        file.seek(start)
        left = end - start
        while left > 0:
            piece = await asyncio.to_thread(file.read, min(_READ, left))
            if not piece:
                return
            left -= len(piece)
            yield piece
