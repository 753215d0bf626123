"""Blob downloads: verified while they are read, resumed with Range requests if the connection is lost."""

import hashlib
import re
from collections.abc import Generator, Iterator

import httpx

from soci_pipeline.errors import SociPipelineError
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.errors import BrokenAnswer, ContentMismatch, RegistryUnreachable
from soci_pipeline.registry.scopes import pull
from soci_pipeline.registry.transport import Call, Transport, is_size, network_errors
from soci_pipeline.retry import Deadline, FailuresInARow, is_temporary
from soci_pipeline.urls import redacted

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:\d{1,18}|\*)\Z")


def stream(
    transport: Transport, repository: str, descriptor: Descriptor, deadline: Deadline
) -> Generator[bytes, None, None]:
    """Yield the blob's bytes in chunks; raise `ContentMismatch` after the last one at the latest.

    Callers must not use the bytes until the iterator has ended without an error.
    """
    state, offset = hashlib.new(descriptor.digest.algorithm), 0
    failures = FailuresInARow(transport.settings, deadline)
    while offset < descriptor.size:
        before = offset
        try:
            for chunk in _from(transport, repository, descriptor, offset, deadline):
                offset += len(chunk)
                if offset > descriptor.size:
                    raise ContentMismatch(f"blob {descriptor.digest} is longer than its {descriptor.size} bytes")
                state.update(chunk)
                yield chunk
            if offset < descriptor.size:
                reason = f"the download of {descriptor.digest} ended after {offset} of {descriptor.size} bytes"
                raise RegistryUnreachable(reason, temporary=True)
        except SociPipelineError as error:
            if offset > before:
                failures.forget()
            if failures.is_last(error, is_temporary):
                raise
            failures.wait(error)
    if state.hexdigest() != descriptor.digest.hex:
        raise ContentMismatch(f"blob {descriptor.digest} of {repository} has the digest {state.hexdigest()}")


def read_range(
    transport: Transport, repository: str, digest: Digest, start: int, end: int, deadline: Deadline
) -> bytes:
    """Return the bytes from ``start`` up to but not including ``end``, with one request; they are not verified."""
    if end <= start:
        return b""
    call = _call(transport, repository, digest, f"bytes={start}-{end - 1}")
    data, position = bytearray(), start
    with transport.open(call, deadline) as response:
        position = _first_byte(response, start)
        for chunk in _chunks(response, transport.settings.read_size, deadline):
            data += chunk[max(0, start - position) : max(0, end - position)]
            position += len(chunk)
            if position >= end:
                break
    if len(data) != end - start:
        where = redacted(str(call.url))
        reason = f"{where}: {len(data)} bytes received instead of {end - start}"
        raise RegistryUnreachable(reason, url=where, temporary=True)
    return bytes(data)


def _from(
    transport: Transport, repository: str, descriptor: Descriptor, offset: int, deadline: Deadline
) -> Iterator[bytes]:
    call = _call(transport, repository, descriptor.digest, f"bytes={offset}-" if offset else None)
    with transport.open(call, deadline) as response:
        position = _first_byte(response, offset)
        length = response.headers.get("content-length", "")
        if is_size(length) and position + int(length) != descriptor.size:
            total = position + int(length)
            raise ContentMismatch(f"blob {descriptor.digest} of {repository} has {total} bytes, not {descriptor.size}")
        for chunk in _chunks(response, transport.settings.read_size, deadline):
            skipped = max(0, offset - position)
            position += len(chunk)
            if fresh := chunk[skipped:]:
                yield fresh


def _call(transport: Transport, repository: str, digest: Digest, byte_range: str | None) -> Call:
    url = transport.url(f"{repository}/blobs/{digest}")
    headers = {"Range": byte_range} if byte_range else None
    return Call("GET", url, pull(repository), frozenset({200, 206}), headers=headers)


def _first_byte(response: httpx.Response, wanted: int) -> int:
    if response.status_code == 200:
        return 0
    match = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
    if match is None or int(match.group(1)) != wanted:
        where = redacted(str(response.request.url))
        raise BrokenAnswer(f"{where} returned a different range from the one requested", url=where, temporary=True)
    return wanted


def _chunks(response: httpx.Response, size: int, deadline: Deadline) -> Iterator[bytes]:
    """Yield the body in chunks of about ``size`` bytes.

    The deadline is checked after each read, because a body that arrives slowly never hits the read timeout.
    """
    held = bytearray()
    with network_errors("GET", response.request.url):
        for piece in response.iter_raw():
            deadline.check()
            held += piece
            if len(held) >= size:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)
