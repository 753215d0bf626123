"""A 401 that has no challenge: that of ``/v2/`` counts, if it is the registry's own."""

import pytest
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import RegistryError
from tests.support.registries import CREDENTIALS, QUICK, described
from tests.support.strange import strange

DATA = b"some bytes of a layer"
BLOB = described(DATA)
CHALLENGE = {"WWW-Authenticate": "Basic realm=x"}


def test_a_refusal_without_a_challenge_is_answered_by_the_one_of_the_base() -> None:
    async def answer(request: Request) -> Response:
        if "authorization" in request.headers:
            return Response(DATA)
        return Response(status_code=401, headers=CHALLENGE if request.url.path == "/v2/" else {})

    with strange(answer) as address, RegistryClient(address, settings=QUICK, credentials=CREDENTIALS) as client:
        assert client.blobs.read("a", BLOB) == DATA


@pytest.mark.parametrize("redirected", [True, False], ids=["another host", "no refusal"])
def test_a_challenge_of_another_host_or_without_a_refusal_is_not_answered(redirected: bool) -> None:
    logins: list[str] = []

    async def other(request: Request) -> Response:
        return Response(status_code=401, headers=CHALLENGE)

    async def answer(request: Request) -> Response:
        logins.extend(value for name, value in request.headers.items() if name == "authorization")
        if request.url.path != "/v2/":
            return Response(status_code=401)
        return RedirectResponse(f"http://{elsewhere}/v2/", 307) if redirected else Response(headers=CHALLENGE)

    with (
        strange(other) as elsewhere,
        strange(answer) as address,
        RegistryClient(address, settings=QUICK, credentials=CREDENTIALS) as client,
        pytest.raises(RegistryError) as caught,
    ):
        client.blobs.read("a", BLOB)
    assert caught.value.status == 401
    assert logins == []
