"""Authentication against a registry: Basic, and Bearer tokens by scope (distribution, spec/auth/token.md and oauth.md).

Tokens are cached until shortly before they expire, one per set of scopes. An authorizer is thread-safe.
"""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from soci_pipeline.http_client import BadRedirect
from soci_pipeline.registry.auth import CredentialProvider, Credentials
from soci_pipeline.registry.challenge import Challenge, parse_challenges
from soci_pipeline.registry.errors import AccessRefused, BrokenAnswer, RegistryUnreachable, from_answer
from soci_pipeline.registry.reference import is_local_registry
from soci_pipeline.registry.scopes import as_written
from soci_pipeline.retry import Deadline
from soci_pipeline.urls import address, is_same_origin, over_tls, redacted

_MAX_TOKEN_BYTES = 1 << 20
_DEFAULT_LIFE = 60.0
_MARGIN = 0.2
_TOKEN_SECONDS = 30.0
_CLIENT_ID = "soci-pipeline"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_HTTPS_PORT = 443
_NOT_HERE = frozenset({404, 405})


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    until: float


class Authorizer:
    """Creates and caches the Authorization headers for one registry."""

    def __init__(
        self, http: httpx.Client, registry: str, provider: CredentialProvider | None, *, plain_http: bool
    ) -> None:
        self._http = http
        self._registry = registry
        self._provider = provider
        self._own = httpx.URL(f"{'http' if plain_http else 'https'}://{registry}")
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._basic: str | None = None
        self._origin: str | None = None
        self._has_login = False
        self._tokens: dict[frozenset[str], _Token] = {}

    @property
    def has_login(self) -> bool:
        """Whether the headers come from credentials; a token may also be anonymous."""
        return self._has_login

    def header(self, scopes: frozenset[str]) -> str | None:
        """Return the header for a request that needs these scopes, or None before the registry's first challenge."""
        with self._lock:
            if self._challenge is None:
                return None
            if self._challenge.scheme == "basic":
                return self._basic
            token = self._tokens.get(scopes)
            if token is None or token.until <= time.monotonic():
                token = self._tokens[scopes] = self._fetch(self._challenge, scopes)
            return token.header

    def refused(self, challenge_header: str | None, scopes: frozenset[str], *, sent: str | None, url: str) -> None:
        """Process the challenge of a 401 response; ``sent`` is the header that was rejected.

        Afterwards, `header` returns a new header. Rejected credentials are requested from the provider again, because
        it may have a new token. Raises `AccessRefused` if there are no credentials, or no other ones, to send.
        """
        challenge = _choose(challenge_header or "")
        if challenge is None:
            raise AccessRefused(
                f"{redacted(url)} requires an authentication scheme that is not supported", status=401, url=url
            )
        with self._lock:
            self._challenge = challenge
            if challenge.scheme == "basic":
                self._basic = self._next_basic(url, sent)
                return
            known = self._tokens.get(scopes)
            # Otherwise another thread has fetched a new token in the meantime.
            if known is None or known.header == sent:
                asked = scopes | frozenset(challenge.parameters.get("scope", "").split())
                self._tokens[scopes] = self._fetch(challenge, asked, refused=sent)

    def renewed(self, scopes: frozenset[str], *, sent: str | None) -> bool:
        """Drop an expired token; return whether `header` will now return something other than ``sent``."""
        with self._lock:
            if self._challenge is None or sent is None:
                return False
            if self._challenge.scheme == "basic":
                self._basic = self._other_basic(sent)
                return self._basic not in (None, sent)
            self._tokens.pop(scopes, None)
            return True

    def _next_basic(self, url: str, sent: str | None) -> str:
        header = self._other_basic(sent)
        if header is None:
            reason = f"{self._registry} requires a login, but none is set"
            raise AccessRefused(reason, url=url, advice=self._advice())
        if header == sent:
            reason = f"{self._registry} rejects the user or password (status 401)"
            raise AccessRefused(reason, url=url, advice=self._advice())
        return header

    def _other_basic(self, sent: str | None) -> str | None:
        """Return the Basic header to use after ``sent`` was rejected, or None if there are no credentials."""
        if self._basic not in (None, sent):
            # Another thread has replaced the header in the meantime, so try that one first.
            return self._basic
        if sent is not None and self._provider is not None:
            self._provider.forget(self._registry)
        credentials = self._credentials()
        return None if credentials is None else credentials.basic()

    def _credentials(self) -> Credentials | None:
        found = None if self._provider is None else self._provider.credentials_for(self._registry)
        self._origin = None if found is None else found.origin
        self._has_login = found is not None
        return found

    def _advice(self) -> str | None:
        """Return advice that names the source of the rejected credentials, or None to keep the error's default."""
        if self._origin is None:
            return None
        return f"Correct {self._origin} in the environment, or unset it to use the login of `docker login`."

    def _fetch(self, challenge: Challenge, scopes: frozenset[str], *, refused: str | None = None) -> _Token:
        """Fetch a token for some scopes; ``refused`` is the header that the registry has just rejected.

        If the token server rejects the credentials, try once more with fresh ones from the provider.
        """
        realms = self._realms(challenge.parameters.get("realm", ""))
        credentials = self._credentials()
        try:
            return self._exchange(challenge, realms, scopes, credentials, refused)
        except AccessRefused:
            if credentials is None or self._provider is None:
                raise
            self._provider.forget(self._registry)
            fresh = self._credentials()
            if fresh == credentials:
                raise
            return self._exchange(challenge, realms, scopes, fresh, refused)

    def _exchange(
        self,
        challenge: Challenge,
        realms: tuple[httpx.URL, ...],
        scopes: frozenset[str],
        credentials: Credentials | None,
        refused: str | None,
    ) -> _Token:
        """Exchange credentials for a token; a registry token is used directly."""
        if credentials is not None and credentials.registry_token is not None:
            header = f"Bearer {credentials.registry_token.get_secret_value()}"
            if header == refused:
                reason = f"{self._registry} rejects the registry token (status 401)"
                raise AccessRefused(reason, url=str(realms[0]))
            return _Token(header, float("inf"))
        for realm in realms[:-1]:
            try:
                return self._token_of(realm, challenge, scopes, credentials)
            except AccessRefused as error:
                if error.status not in _NOT_HERE:
                    raise
        return self._token_of(realms[-1], challenge, scopes, credentials)

    def _token_of(
        self, realm: httpx.URL, challenge: Challenge, scopes: frozenset[str], credentials: Credentials | None
    ) -> _Token:
        """Fetch a token with the OAuth protocol for an identity token, otherwise with the token protocol."""
        requested = as_written(scopes, challenge.parameters.get("scope", ""))
        service = challenge.parameters.get("service", "")
        if credentials is not None and credentials.identity_token is not None:
            fields = {
                "grant_type": "refresh_token",
                "refresh_token": credentials.identity_token.get_secret_value(),
                "client_id": _CLIENT_ID,
                "service": service,
                "scope": " ".join(requested),
            }
            secrets = (credentials.identity_token.get_secret_value(),)
            return self._ask("POST", realm, fields=fields, secrets=secrets)
        query: list[tuple[str, str]] = [("service", service)] if service else []
        query += [("scope", scope) for scope in requested]
        basic = None if credentials is None else credentials.basic()
        if credentials is not None and basic is not None:
            query.append(("account", credentials.username))
        url = realm.copy_with(params=[*realm.params.multi_items(), *query])
        return self._ask("GET", url, authorization=basic, secrets=secrets_of(basic))

    def _realms(self, realm: str) -> tuple[httpx.URL, ...]:
        """Return the token URLs to try, in order; raise `AccessRefused` for a realm that must not receive credentials.

        Credentials for an https registry are never sent over plain http: an http URL on the registry's own host is
        changed to https. If that URL has no port, it may mean the registry's port (a proxy dropped it from the Host
        header) or the https default, so both are tried.
        """
        url = address(realm)
        if url is not None and url.host and not url.userinfo:
            its_own = url.host == self._own.host or (is_local_registry(url.host) and is_local_registry(self._registry))
            if url.scheme == "https" or (url.scheme == "http" and self._own.scheme == "http" and its_own):
                return (url,)
            corrected = over_tls(url, self._own)
            if corrected.scheme == "https" and url.port in (None, self._own.port or _HTTPS_PORT):
                may_be_default = url.port is None and corrected.port is not None
                return (corrected, corrected.copy_with(port=None)) if may_be_default else (corrected,)
        raise AccessRefused(
            f"{self._registry} sends logins to {redacted(realm)[:200]!r}, which is not an https URL; nothing was sent",
            url=realm,
            advice="Ask the registry's operator for a token endpoint over https.",
        )

    def _ask(
        self,
        method: str,
        url: httpx.URL,
        *,
        fields: Mapping[str, str] | None = None,
        authorization: str | None = None,
        secrets: Collection[str] = (),
    ) -> _Token:
        """Request a token, following redirects within the same scheme, host and port, or to https on that host."""
        headers = {"Accept-Encoding": "identity"}
        if authorization is not None:
            headers["Authorization"] = authorization
        deadline = Deadline(_TOKEN_SECONDS)
        for _ in range(_MAX_REDIRECTS + 1):
            response, body = self._send(method, url, headers, fields, deadline)
            if response.status_code not in _REDIRECTS:
                return self._answered(method, url, response, body, secrets)
            url = _moved(method, url, response)
        where = redacted(str(url))
        raise BrokenAnswer(f"the token endpoint {where} redirects more than {_MAX_REDIRECTS} times", url=where)

    def _send(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        fields: Mapping[str, str] | None,
        deadline: Deadline,
    ) -> tuple[httpx.Response, bytes]:
        where = redacted(str(url))
        try:
            request = self._http.build_request(method, url, data=fields, headers=headers, timeout=_TOKEN_SECONDS)
            response = self._http.send(request, stream=True)
            with contextlib.closing(response):
                return response, bounded(response, _MAX_TOKEN_BYTES, deadline)
        except BadRedirect as error:
            raise BrokenAnswer(f"the token endpoint {where} {error}", url=where) from error
        except httpx.HTTPError as error:
            reason = f"the token endpoint {where} cannot be reached: {type(error).__name__}"
            raise RegistryUnreachable(reason, url=where, temporary=True) from error

    def _answered(
        self, method: str, url: httpx.URL, response: httpx.Response, body: bytes, secrets: Collection[str]
    ) -> _Token:
        if response.status_code in (200, 201):
            return _token(body, str(url))
        failure = from_answer(
            method, str(url), response.status_code, response.headers, body, now=time.time(), secrets=secrets
        )
        if response.status_code in (400, 401, 403, 404, 405):
            raise AccessRefused(
                failure.reason, code=failure.code, status=failure.status, url=failure.url, advice=self._advice()
            )
        raise failure


def _moved(method: str, url: httpx.URL, response: httpx.Response) -> httpx.URL:
    """Return the target of a redirect of the token URL.

    Raises `BrokenAnswer` for another server, which must not receive the credentials, and for a Location that is not a
    URL.
    """
    where = redacted(str(url))
    target = address(response.headers.get("location", ""), base=url)
    if target is None or "location" not in response.headers:
        raise BrokenAnswer(f"the token endpoint {where} redirects to something that is not a URL", url=where)
    target = over_tls(target, url)
    to_https = url.copy_with(scheme="https") if url.port is None else url
    if target.userinfo or not (is_same_origin(target, url) or is_same_origin(target, to_https)):
        raise BrokenAnswer(
            f"the token endpoint {where} redirects to another server, {redacted(str(target))}; the login was not sent",
            url=where,
            advice="Ask the registry's operator for a token endpoint that does not redirect to another server.",
        )
    if response.status_code == 303 and method == "POST":
        raise BrokenAnswer(f"the token endpoint {where} redirects a POST request with status 303", url=where)
    return target


def secrets_of(authorization: str | None) -> tuple[str, ...]:
    """Return the secrets in an Authorization header that no message may repeat: its value and the password in it."""
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return (value,)
    return value, base64.b64decode(value).decode().partition(":")[2]


def bounded(response: httpx.Response, limit: int, deadline: Deadline) -> bytes:
    """Read a response's undecoded body; raise `BrokenAnswer` if it is longer than ``limit`` bytes."""
    data = bytearray()
    for chunk in response.iter_raw():
        # A body that arrives byte by byte never hits the timeout of a single read.
        deadline.check()
        data += chunk
        if len(data) > limit:
            url = redacted(str(response.request.url))
            raise BrokenAnswer(f"{url} returned more than the limit of {limit} bytes", url=url)
    return bytes(data)


def _token(body: bytes, url: str) -> _Token:
    try:
        fields: Any = json.loads(body)
        token = fields.get("token") or fields["access_token"]
        life = float(fields.get("expires_in") or _DEFAULT_LIFE)
        if not isinstance(token, str) or not token.isprintable() or not token.isascii():
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise BrokenAnswer(f"the token endpoint {redacted(url)} returned no valid token", url=url) from None
    return _Token(f"Bearer {token}", time.monotonic() + life * (1 - _MARGIN))


def _choose(header: str) -> Challenge | None:
    known = {challenge.scheme: challenge for challenge in reversed(parse_challenges(header))}
    bearer, basic = known.get("bearer"), known.get("basic")
    # A Bearer challenge without a realm does not say where to get a token.
    has_realm = bearer is not None and bool(bearer.parameters.get("realm"))
    return bearer if has_realm or basic is None else basic
