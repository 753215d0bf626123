"""Authentication of the embedded registry: Basic, or Bearer tokens by scope (distribution, spec/auth/token.md)."""

import base64
import binascii
import hmac
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import parse_qs

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from soci_pipeline.errors import InvalidInput
from soci_pipeline.registry.server.answers import Refusal, json_response, limited_body

Access = Mapping[str, frozenset[str]]
"""Actions by resource: ``{"repository:team/app": {"pull"}}`` (distribution, spec/auth/scope.md)."""

CATALOG: Access = MappingProxyType({"registry:catalog": frozenset({"*"})})
_SERVICE = "soci-pipeline-registry"
# The user may do everything. In a scope, `*` means all of these actions.
_REPOSITORY_ACTIONS = frozenset({"pull", "push", "delete"})
_CATALOG_ACTIONS = CATALOG["registry:catalog"]
_MAX_FORM_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Login:
    """The only user; with ``bearer``, clients must fetch a token per scope, valid for ``token_life`` seconds.

    Raises `InvalidInput` for an empty username or password, which a request without credentials would match, and for a
    username with a colon.
    """

    username: str
    password: SecretStr
    bearer: bool = False
    token_life: float = 300.0

    def __post_init__(self) -> None:
        if not self.username or ":" in self.username:
            raise InvalidInput(f"a username must not be empty or contain a colon: {self.username!r}")
        if not self.password.get_secret_value().strip():
            raise InvalidInput("the password of a login must not be empty")


@dataclass(frozen=True, slots=True)
class _Grant:
    actions: frozenset[tuple[str, str]]
    until: float


class Gate:
    """Authenticates and authorizes requests. Tokens are kept in memory."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._grants: dict[str, _Grant] = {}
        self._lock = threading.Lock()

    def check(self, request: Request, access: Access) -> None:
        """Raise `Refusal` with a challenge if the request lacks that access."""
        if not self.allows(request, access):
            raise self.challenge(request, access, error=self._problem(request))

    def allows(self, request: Request, access: Access) -> bool:
        """Whether the request's Authorization header grants that access."""
        kind, value = _authorization(request)
        if not self._login.bearer:
            return kind == "basic" and self._is_user(value)
        grant = self._grant(request)
        return grant is not None and _pairs(access) <= grant.actions

    def _grant(self, request: Request) -> _Grant | None:
        kind, value = _authorization(request)
        with self._lock:
            grant = self._grants.get(value) if kind == "bearer" else None
        return grant if grant is not None and grant.until > time.monotonic() else None

    def _problem(self, request: Request) -> str:
        """Return the error code of a challenge (RFC 6750, section 3.1), or "" if no token was sent."""
        if _authorization(request)[0] != "bearer":
            return ""
        return "invalid_token" if self._grant(request) is None else "insufficient_scope"

    async def token(self, request: Request) -> Response:
        """Handle the token endpoint: GET with Basic, or POST with an identity token, which is the password."""
        if request.method == "POST":
            try:
                body = await limited_body(request, _MAX_FORM_BYTES, "DENIED")
            except Refusal as refusal:
                return refusal.response()
            fields = parse_qs(body.decode(errors="replace"))
            offered = (fields.get("refresh_token") or [""])[0]
            allowed = self._is_password(offered.encode())
            scopes = (fields.get("scope") or [""])[0].split()
        else:
            kind, value = _authorization(request)
            allowed = kind == "basic" and self._is_user(value)
            scopes = [scope for given in request.query_params.getlist("scope") for scope in given.split()]
        if not allowed:
            return Refusal("UNAUTHORIZED", "wrong user or password").response()
        token = secrets.token_urlsafe(32)
        grant = _Grant(_pairs(_granted(scopes)), time.monotonic() + self._login.token_life)
        with self._lock:
            self._grants = {name: old for name, old in self._grants.items() if old.until > time.monotonic()}
            self._grants[token] = grant
        return json_response({"token": token, "access_token": token, "expires_in": int(self._login.token_life)})

    def challenge(self, request: Request, access: Access, *, error: str = "invalid_token") -> Refusal:
        """Return the error, with a challenge, for a request that lacks that access."""
        headers = {"WWW-Authenticate": self._challenge(request, access, error)}
        return Refusal("UNAUTHORIZED", "authentication required", headers=headers)

    def _challenge(self, request: Request, access: Access, error: str) -> str:
        if not self._login.bearer:
            return 'Basic realm="soci-pipeline registry", charset="UTF-8"'
        # Clients need an absolute URL. `hosts.with_valid_host` has checked that the Host header is a host and a port.
        server, port = request.scope.get("server") or ("", None)
        realm = f"{request.url.scheme}://{request.headers.get('host') or f'{server}:{port}'}/token"
        parameters = {"realm": realm, "service": _SERVICE}
        if access:
            parameters["scope"] = " ".join(f"{name}:{','.join(sorted(actions))}" for name, actions in access.items())
        if error:
            parameters["error"] = error
        return "Bearer " + ",".join(f'{name}="{value}"' for name, value in parameters.items())

    def _is_user(self, encoded: str) -> bool:
        try:
            user, _, password = base64.b64decode(encoded, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        right_user = hmac.compare_digest(user, self._login.username.encode())
        right_password = self._is_password(password)
        return right_user and right_password

    def _is_password(self, offered: bytes) -> bool:
        return hmac.compare_digest(offered, self._login.password.get_secret_value().encode())


def repository_access(name: str, actions: frozenset[str]) -> Access:
    """Return the access for some actions on one repository."""
    return {f"repository:{name}": actions}


def _authorization(request: Request) -> tuple[str, str]:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    return kind.lower(), value


def _pairs(access: Access) -> frozenset[tuple[str, str]]:
    return frozenset((resource, action) for resource, actions in access.items() for action in actions)


def _granted(scopes: list[str]) -> Access:
    granted: dict[str, frozenset[str]] = {}
    for scope in scopes:
        resource, _, text = scope.rpartition(":")
        possible = _REPOSITORY_ACTIONS if resource.startswith("repository:") else _CATALOG_ACTIONS
        if resource.startswith("repository:") or resource in CATALOG:
            actions = frozenset(text.split(","))
            granted[resource] = granted.get(resource, frozenset()) | (
                possible if "*" in actions else actions & possible
            )
    return granted
