"""Logins that are taken and do not suffice, and refusals without one: what the advice says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import AccessRefused
from soci_pipeline.registry.server import Login, ServerSettings
from tests.support.faults import Fault, FaultPlan
from tests.support.registries import CREDENTIALS, LOGIN, QUICK, REPOSITORY, registry, upload
from tests.support.strange import strange

BASIC = replace(LOGIN, bearer=False)


@pytest.mark.parametrize(
    ("work", "method", "action"),
    [
        (lambda client: client.manifests.get(REPOSITORY, "v1"), "GET", "pull"),
        (lambda client: upload(client, b"x"), "POST", "push"),
        (lambda client: client.manifests.delete(REPOSITORY, "v1"), "DELETE", "delete"),
    ],
)
@pytest.mark.parametrize("login", [LOGIN, BASIC], ids=["bearer", "basic"])
def test_a_login_that_is_taken_and_may_not_is_told_what_it_lacks(
    tmp_path: Path, login: Login, work: Callable[[RegistryClient], object], method: str, action: str
) -> None:
    plan = FaultPlan([Fault(method, f"/v2/{REPOSITORY}/", times=9, status=403, code="DENIED")])
    server = ServerSettings(login=login)
    with registry(tmp_path, faults=plan, server=server, credentials=CREDENTIALS) as client:
        client.ping()
        with pytest.raises(AccessRefused) as caught:
            work(client)
    assert f"login was accepted, but lacks the permission to {action} on {REPOSITORY}" in str(caught.value.advice)
    assert "docker login" not in str(caught.value.advice)


def _of_a_token(error: str, code: str) -> Starlette:
    """A registry that gives everybody a token and then says why it is not enough."""

    async def token(request: Request) -> Response:
        return JSONResponse({"token": "given"})

    async def answer(request: Request) -> Response:
        challenge = f'Bearer realm="http://{request.headers["host"]}/token",error="{error}"'
        body = {"errors": [{"code": code, "message": "requested access to the resource is denied"}]}
        return JSONResponse(body, 401, headers={"WWW-Authenticate": challenge})

    return Starlette(routes=[Route("/token", token), Route("/{rest:path}", answer, methods=["GET", "POST"])])


@pytest.mark.parametrize(
    ("error", "code", "accepted"),
    [
        ("insufficient_scope", "UNAUTHORIZED", True),
        ("", "DENIED", True),
        ("invalid_token", "UNAUTHORIZED", False),
        ("", "UNAUTHORIZED", False),
    ],
)
def test_a_token_of_too_little_scope_is_a_lack_of_permission(error: str, code: str, accepted: bool) -> None:
    with (
        strange(_of_a_token(error, code)) as address,
        RegistryClient(address, settings=QUICK, credentials=CREDENTIALS) as client,
        pytest.raises(AccessRefused) as caught,
    ):
        client.manifests.get(REPOSITORY, "v1")
    assert ("lacks the permission to pull on team/app" in str(caught.value.advice)) is accepted
    assert ("docker login" in str(caught.value.advice)) is not accepted


@pytest.mark.parametrize(
    "error",
    [
        {"code": "DENIED", "message": "denied", "detail": [{"Type": "repository", "Name": "team/expired-cards"}]},
        {
            "code": "DENIED",
            "message": "User is not authorized on resource: arn:aws:ecr:x:1:repository/team/expired-cards",
        },
    ],
    ids=["distribution", "ECR"],
)
def test_a_repository_that_is_called_expired_is_no_expired_token(error: dict[str, object]) -> None:
    asked: list[str] = []

    async def answer(request: Request) -> Response:
        if "authorization" not in request.headers:
            return Response(status_code=401, headers={"WWW-Authenticate": "Basic realm=x"})
        asked.append(request.url.path)
        return JSONResponse({"errors": [error]}, 403)

    with (
        strange(answer) as address,
        RegistryClient(address, settings=QUICK, credentials=CREDENTIALS) as client,
        pytest.raises(AccessRefused) as caught,
    ):
        client.manifests.get("team/expired-cards", "v1")
    assert "lacks the permission to pull on team/expired-cards" in str(caught.value.advice)
    assert len(asked) == 1, "another token would not help"


def test_without_a_login_a_refusal_asks_for_one(tmp_path: Path) -> None:
    plan = FaultPlan([Fault("GET", "/manifests/", times=9, status=403, code="DENIED")])
    with (
        strange(_of_a_token("insufficient_scope", "DENIED")) as address,
        RegistryClient(address, settings=QUICK) as stranger,
        registry(tmp_path, faults=plan) as client,
    ):
        for each in (stranger, client):
            with pytest.raises(AccessRefused) as caught:
                each.manifests.get(REPOSITORY, "v1")
            assert "docker login" in str(caught.value.advice)
