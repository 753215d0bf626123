"""Manifests that are too large, not their digest, or compressed; headers that are not to be trusted."""

import gzip
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.oci.media_types import OCI_INDEX
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import (
    BrokenAnswer,
    ContentMismatch,
)
from soci_pipeline.registry.transport import is_size
from tests.support.registries import QUICK
from tests.support.strange import strange


def test_a_manifest_above_four_mebibytes_is_not_read_to_its_end() -> None:
    sent = 0

    async def endless(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < 256 << 20 and not await request.is_disconnected():
                sent += 1 << 16
                yield b" " * (1 << 16)

        return StreamingResponse(body())

    with (
        strange(endless) as address,
        RegistryClient(address, settings=QUICK) as client,
        pytest.raises(BrokenAnswer, match="more than"),
    ):
        client.manifests.get("a", "v1")
    assert sent < 64 << 20


def test_a_manifest_that_is_not_its_digest_is_refused() -> None:
    async def answer(request: Request) -> Response:
        return JSONResponse({}, headers={"Docker-Content-Digest": Digest.of(b"promised")})

    with strange(answer) as address, RegistryClient(address, settings=QUICK) as client:
        for reference in ("v1", Digest.of(b"other")):
            with pytest.raises(ContentMismatch):
                client.manifests.get("a", reference)


def test_a_compressed_answer_is_not_inflated() -> None:
    index = ImageIndex().encode()
    bomb = gzip.compress(index + b" " * (64 << 20))

    async def answer(request: Request) -> Response:
        return Response(bomb, headers={"Content-Type": OCI_INDEX, "Content-Encoding": "gzip"})

    with strange(answer) as address, RegistryClient(address, settings=QUICK) as client:
        assert client.manifests.get("a", "v1")[1] == bomb
        with pytest.raises(ContentMismatch):
            client.manifests.get("a", Digest.of(index))
        with pytest.raises(BrokenAnswer):
            client.tags.list("a")


def test_a_digest_or_a_length_that_is_none_is_not_taken_from_a_header() -> None:
    index = ImageIndex().encode()

    async def answer(request: Request) -> Response:
        headers = {"Content-Type": OCI_INDEX}
        if request.method == "HEAD":
            headers |= {"Docker-Content-Digest": "sha256:oops", "Content-Length": str(len(index))}
        return Response(index, headers=headers)

    with strange(answer) as address, RegistryClient(address, settings=QUICK) as client:
        found = client.manifests.head("a", "v1")
    assert found is not None
    assert found.digest == Digest.of(index)
    assert not any(is_size(text) for text in ("", "-1", "1" * 5000, "٣", "1.0"))
