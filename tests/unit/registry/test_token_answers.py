"""Challenges and token answers of older and other servers."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import AccessRefused
from soci_pipeline.registry.scopes import as_written
from tests.support.deviations import Registry
from tests.support.registries import AT_ONCE, CREDENTIALS, described, push_image
from tests.support.strange import strange

NAME = "team/app"


class WithTokens(Registry):
    """A registry that wants a token; its challenge is ``form``, where REALM stands for the token endpoint."""

    def __init__(
        self,
        form: str = 'Bearer realm="REALM",service="r"',
        *,
        token: Mapping[str, object] | None = None,
        token_status: int = 200,
    ) -> None:
        super().__init__()
        self.form = form
        self.token = token or {"token": "given"}
        self.token_status = token_status
        self.scopes: list[str] = []

    def special(self, request: Request, body: bytes) -> Response | None:
        if request.url.path == "/token":
            self.scopes += request.query_params.getlist("scope")
            return JSONResponse(dict(self.token), self.token_status)
        if request.headers.get("authorization") in ("Bearer given", "Basic cm9ib3Q6b3BlbnNlc2FtZQ=="):
            return None
        return self.refuse(request)

    def refuse(self, request: Request) -> Response:
        return Response(status_code=401, headers={"WWW-Authenticate": self.challenge(request)})

    def challenge(self, request: Request) -> str:
        return self.form.replace("REALM", f"http://{request.headers['host']}/token")


class HeadHasNoChallenge(WithTokens):
    """Artifactory, Artifact Registry: 401 for HEAD without a challenge."""

    def refuse(self, request: Request) -> Response:
        return Response(status_code=401) if request.method == "HEAD" else super().refuse(request)


class OnlyTheBaseHasAChallenge(WithTokens):
    """A challenge for ``/v2/`` alone."""

    def refuse(self, request: Request) -> Response:
        return super().refuse(request) if request.url.path == "/v2/" else Response(status_code=401)


class Answers403(WithTokens):
    """403 with a challenge for those without a login."""

    def refuse(self, request: Request) -> Response:
        answer = super().refuse(request)
        answer.status_code = 403
        return answer


class TwoHeaders(WithTokens):
    """Each challenge in a header of its own."""

    def refuse(self, request: Request) -> Response:
        answer = Response(status_code=401, headers={"WWW-Authenticate": 'Negotiate, NTLM, Basic realm="x"'})
        answer.headers.append("WWW-Authenticate", self.challenge(request))
        return answer


@contextmanager
def client_of(registry: Registry) -> Iterator[RegistryClient]:
    with (
        strange(registry.answer) as address,
        RegistryClient(address, settings=AT_ONCE, credentials=CREDENTIALS) as client,
    ):
        yield client


@pytest.mark.parametrize(
    "registry",
    [
        WithTokens(token={"access_token": "given"}),
        WithTokens(token={"token": "", "access_token": "given", "expires_in": None}),
        WithTokens(token={"token": "given", "expires_in": "300", "issued_at": "never"}),
        WithTokens(token={"token": "given", "expires_in": 0}),
        WithTokens(token_status=201),
        WithTokens("Bearer realm=REALM,service=r"),
        WithTokens("Bearer realm='REALM', service='r'"),
        WithTokens('bearer Realm="REALM";SERVICE="r"'),
        WithTokens('Basic realm="x", Bearer realm="REALM"'),
        WithTokens('Bearer, Basic realm="x"'),
        WithTokens('Basic realm="x"'),
        WithTokens("Basic"),
        HeadHasNoChallenge(),
        OnlyTheBaseHasAChallenge(),
        Answers403(),
        TwoHeaders(),
    ],
    ids=lambda registry: f"{type(registry).__name__} {registry.form} {registry.token}",
)
def test_a_login_works_with(registry: WithTokens) -> None:
    with client_of(registry) as client:
        image, _ = push_image(client, "v1", to=NAME)
    with client_of(registry) as client:
        assert client.manifests.head(NAME, "v1") == image


def test_a_401_without_any_challenge_is_named() -> None:
    class NoChallenge(WithTokens):
        def refuse(self, request: Request) -> Response:
            return Response(status_code=401)

    registry = NoChallenge()
    with client_of(registry) as client, pytest.raises(AccessRefused, match="authentication"):
        client.manifests.head(NAME, "v1")
    assert len(registry.requests) < 5


@pytest.mark.parametrize("status", [200, 400])
def test_a_token_server_that_takes_one_scope_only_costs_a_mount_and_no_upload(status: int) -> None:
    """docker_auth and Harbor read one of several scopes; others answer 400 to more than one."""

    class OneScope(WithTokens):
        def special(self, request: Request, body: bytes) -> Response | None:
            if request.url.path != "/token" or len(request.query_params.getlist("scope")) < 2:
                return super().special(request, body)
            return JSONResponse({"token": "too little"}, status)

    registry, blob = OneScope(), described(b"some bytes")
    with client_of(registry) as client:
        assert client.blobs.upload(NAME, blob, lambda: io.BytesIO(b"some bytes"), mount_from="other/app")
    assert registry.blobs[blob.digest] == b"some bytes"


@pytest.mark.parametrize("written", ["push,pull", "pull,push"])
def test_the_actions_of_a_scope_are_written_as_in_the_challenge(written: str) -> None:
    registry = WithTokens(f'Bearer realm="REALM",scope="repository:{NAME}:{written}"')
    blob = described(b"some bytes")
    with client_of(registry) as client:
        client.blobs.upload(NAME, blob, lambda: io.BytesIO(b"some bytes"))
    assert f"repository:{NAME}:{written}" in registry.scopes


def test_a_challenge_changes_no_scope_but_its_spelling() -> None:
    needed = {"repository:a:pull,push"}
    assert as_written(needed, "repository:a:push,pull") == ("repository:a:push,pull",)
    for other in ("", "repository:a:pull", "repository:b:push,pull", "registry:catalog:*", "nonsense", ": ::"):
        assert as_written(needed, other) == ("repository:a:pull,push",)
