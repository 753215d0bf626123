"""Logins at the embedded registry: Basic, or Bearer tokens by scope (distribution, spec/auth/token.md)."""

import base64
import binascii
import hmac
import secrets
import threading
import time
from dataclasses import dataclass
from urllib.parse import parse_qs

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from soci_pipeline.registry.server.answers import Refusal, json_response, small_body

_SERVICE = "soci-pipeline-registry"
_MAX_FORM_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Login:
    """One user; ``bearer`` makes clients fetch a token for each scope, which lives ``token_life`` seconds."""

    username: str
    password: SecretStr
    bearer: bool = False
    token_life: float = 300.0


@dataclass(frozen=True, slots=True)
class _Grant:
    actions: frozenset[tuple[str, str]]
    until: float


class Gate:
    """Decides about requests. Tokens live in memory."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._grants: dict[str, _Grant] = {}
        self._lock = threading.Lock()

    def check(self, request: Request, repository: str | None, actions: frozenset[str]) -> None:
        """Raises `Refusal` with the challenge where the request may not do that."""
        if not self.allows(request, repository, actions):
            raise self._refusal(self._challenge(request, repository, actions))

    def allows(self, request: Request, repository: str | None, actions: frozenset[str]) -> bool:
        """Whether the request's Authorization covers that."""
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if not self._login.bearer:
            return kind.lower() == "basic" and self._is_user(value)
        wanted = {(repository, action) for action in actions} if repository else set()
        with self._lock:
            grant = self._grants.get(value) if kind.lower() == "bearer" else None
        return grant is not None and grant.until > time.monotonic() and wanted <= grant.actions

    def forget_tokens(self) -> None:
        """Every token given out so far has expired."""
        with self._lock:
            self._grants.clear()

    async def token(self, request: Request) -> Response:
        """The token endpoint: GET with Basic, or POST with an identity token (the password serves as one)."""
        if request.method == "POST":
            try:
                body = await small_body(request, _MAX_FORM_BYTES, "DENIED")
            except Refusal as refusal:
                return refusal.response()
            fields = parse_qs(body.decode(errors="replace"))
            offered = (fields.get("refresh_token") or [""])[0]
            allowed = hmac.compare_digest(offered.encode(), self._login.password.get_secret_value().encode())
            scopes = (fields.get("scope") or [""])[0].split()
        else:
            kind, _, value = request.headers.get("authorization", "").partition(" ")
            allowed = kind.lower() == "basic" and self._is_user(value)
            scopes = [scope for given in request.query_params.getlist("scope") for scope in given.split()]
        if not allowed:
            return Refusal("UNAUTHORIZED", "user or password is wrong").response()
        token = secrets.token_urlsafe(32)
        grant = _Grant(frozenset(_actions(scopes)), time.monotonic() + self._login.token_life)
        with self._lock:
            self._grants = {name: old for name, old in self._grants.items() if old.until > time.monotonic()}
            self._grants[token] = grant
        return json_response({"token": token, "access_token": token, "expires_in": int(self._login.token_life)})

    def challenge(self, request: Request, repository: str | None, actions: frozenset[str]) -> Refusal:
        """What a request with an expired token is answered."""
        problem = ',error="invalid_token"' if self._login.bearer else ""
        return self._refusal(self._challenge(request, repository, actions) + problem)

    def _challenge(self, request: Request, repository: str | None, actions: frozenset[str]) -> str:
        if not self._login.bearer:
            return 'Basic realm="soci-pipeline registry", charset="UTF-8"'
        realm = f"{request.url.scheme}://{request.headers.get('host', '')}/token"
        scope = f',scope="repository:{repository}:{",".join(sorted(actions))}"' if repository else ""
        return f'Bearer realm="{realm}",service="{_SERVICE}"{scope}'

    def _refusal(self, challenge: str) -> Refusal:
        return Refusal("UNAUTHORIZED", "authentication required", headers={"WWW-Authenticate": challenge})

    def _is_user(self, encoded: str) -> bool:
        try:
            user, _, password = base64.b64decode(encoded, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        right_user = hmac.compare_digest(user, self._login.username.encode())
        right_password = hmac.compare_digest(password, self._login.password.get_secret_value().encode())
        return right_user and right_password


def _actions(scopes: list[str]) -> set[tuple[str, str]]:
    found = set()
    for scope in scopes:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind == "repository":
            found |= {(name, action) for action in actions.split(",")}
    return found
