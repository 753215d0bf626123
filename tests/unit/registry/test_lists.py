"""Lists of tags and referrers that come page by page, from registries that never come to an end or mean harm."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Protocol

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from soci_pipeline.errors import DeadlineExceeded
from soci_pipeline.oci.media_types import OCI_INDEX
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import BrokenAnswer, RegistryUnreachable
from soci_pipeline.registry.settings import ClientSettings
from tests.support.registries import QUICK, described
from tests.support.strange import strange

Handler = Callable[[Request], Awaitable[Response]]


class ClientOf(Protocol):
    def __call__(self, answer: Handler, settings: ClientSettings = QUICK) -> RegistryClient: ...


@pytest.fixture
def client_of() -> Iterator[ClientOf]:
    """Makes clients of registries that answer every request in one way."""
    with ExitStack() as stack:

        def made(answer: Handler, settings: ClientSettings = QUICK) -> RegistryClient:
            address = stack.enter_context(strange(answer))
            return stack.enter_context(RegistryClient(address, settings=settings))

        yield made


def test_a_list_of_tags_that_never_ends_is_given_up(client_of: ClientOf) -> None:
    async def circle(request: Request) -> Response:
        return JSONResponse({"tags": ["t"]}, headers={"Link": '</v2/a/tags/list>; rel="next"'})

    async def away(request: Request) -> Response:
        return JSONResponse({"tags": ["t"]}, headers={"Link": '<http://example.com/v2/a/tags/list>; rel="next"'})

    for handler, words in ((circle, "end"), (away, "another host")):
        with pytest.raises(BrokenAnswer, match=words):
            client_of(handler).tags.list("a")


@pytest.mark.parametrize("link", ["<http://[::1>", "<https://xn--/>", "<http://a:b/>"])
def test_a_list_that_goes_on_at_what_is_no_address_is_refused(client_of: ClientOf, link: str) -> None:
    async def answer(request: Request) -> Response:
        return JSONResponse({"tags": ["t"]}, headers={"Link": f'{link}; rel="next"'})

    with pytest.raises(BrokenAnswer, match="invalid link to its next page"):
        client_of(answer).tags.list("a")


@pytest.mark.parametrize("part", ["a", "<", "<a>; ", "; ", "<a>;rel=", ",", '"'])
def test_a_hostile_link_is_read_in_no_time(client_of: ClientOf, part: str) -> None:
    link = (part * 60_000)[:60_000].strip()

    async def answer(request: Request) -> Response:
        return JSONResponse({"tags": ["v1"]}, headers={"Link": link})

    began = time.process_time()
    assert client_of(answer).tags.list("a") == ("v1",)
    assert time.process_time() - began < 2


def test_all_pages_of_a_list_together_have_a_bound(client_of: ClientOf) -> None:
    page = b'{"tags": ["' + b"t" * (7 << 20) + b'"]}'

    async def answer(request: Request) -> Response:
        return Response(page, headers=_following(request))

    with pytest.raises(BrokenAnswer, match="bytes"):
        client_of(answer).tags.list("a")


def test_all_pages_of_a_list_have_one_deadline(client_of: ClientOf) -> None:
    async def answer(request: Request) -> Response:
        await asyncio.sleep(0.05)
        return JSONResponse({"tags": []}, headers=_following(request))

    with pytest.raises((DeadlineExceeded, RegistryUnreachable)):
        client_of(answer, replace(QUICK, deadline=0.4)).tags.list("a")


@pytest.mark.parametrize("tag", ["../../other/manifests/latest", "a/b", "", "a" * 200, "a?b", "\u202eevil"])
def test_what_no_reference_can_name_is_no_tag(client_of: ClientOf, tag: str) -> None:
    async def answer(request: Request) -> Response:
        return JSONResponse({"tags": ["v1", tag]})

    assert client_of(answer).tags.list("a") == ("v1",)


def test_a_list_of_referrers_that_never_ends_is_given_up(client_of: ClientOf) -> None:
    entries = [described(str(number).encode()).to_json() for number in range(2000)]
    page = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})

    async def answer(request: Request) -> Response:
        return Response(page, headers={"Content-Type": OCI_INDEX} | _following(request))

    with pytest.raises(BrokenAnswer, match="referrers"):
        client_of(answer).referrers.list("a", described(b"an image").digest)


def _following(request: Request) -> dict[str, str]:
    """The header that names the next page, of which there is always one."""
    number = int(request.query_params.get("page", "0"))
    return {"Link": f'<{request.url.path}?page={number + 1}>; rel="next"'}
