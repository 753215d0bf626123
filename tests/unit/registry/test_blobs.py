"""Blobs that are not what their descriptor says, or come too slowly."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from soci_pipeline.errors import DeadlineExceeded, InvalidInput
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import (
    ContentMismatch,
    RegistryUnreachable,
)
from tests.support.registries import QUICK, described
from tests.support.strange import strange

DATA = b"some bytes of a layer"
BLOB = described(DATA)


def test_a_blob_that_is_longer_or_shorter_than_its_descriptor_is_refused() -> None:
    async def answer(request: Request) -> Response:
        return Response(DATA)

    with strange(answer) as address, RegistryClient(address, settings=QUICK) as client:
        for size in (len(DATA) - 1, len(DATA) + 1):
            with pytest.raises(ContentMismatch):
                client.blobs.read("a", BLOB.annotated(size=size))
        with pytest.raises(ContentMismatch):
            client.blobs.read("a", BLOB.annotated(digest=Digest.of(b"other")))
        with pytest.raises(InvalidInput):
            client.blobs.read("a", BLOB, limit=3)


def test_a_blob_that_comes_by_drops_ends_with_the_deadline() -> None:
    async def drip() -> AsyncIterator[bytes]:
        for _ in range(len(DATA)):
            await asyncio.sleep(0.1)
            yield b"."

    async def answer(request: Request) -> Response:
        return StreamingResponse(drip())

    timeout = replace(QUICK, deadline=0.3, slowest_rate=1 << 30)
    with strange(answer) as address, RegistryClient(address, settings=timeout) as client:
        with pytest.raises((DeadlineExceeded, RegistryUnreachable)):
            client.blobs.read("a", BLOB)
        with pytest.raises((DeadlineExceeded, RegistryUnreachable)):
            client.blobs.read_range("a", BLOB.digest, 0, len(DATA))
