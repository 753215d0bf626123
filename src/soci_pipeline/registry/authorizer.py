"""Answers a registry's challenges: Basic, and Bearer tokens by scope (distribution, spec/auth/token.md and oauth.md).

Tokens are kept until shortly before they expire, one for each set of scopes. Threads share one authorizer.
"""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import httpx

from soci_pipeline.http_client import BadRedirect
from soci_pipeline.registry.addresses import address
from soci_pipeline.registry.auth import CredentialProvider, Credentials
from soci_pipeline.registry.challenge import Challenge, parse_challenges
from soci_pipeline.registry.errors import AccessRefused, BrokenAnswer, RegistryUnreachable, from_answer, redacted
from soci_pipeline.registry.reference import hostname, is_loopback
from soci_pipeline.registry.scopes import merged
from soci_pipeline.registry.settings import Deadline

_MAX_TOKEN_BYTES = 1 << 20
_DEFAULT_LIFE = 60.0
_MARGIN = 0.2
_TOKEN_SECONDS = 30.0
_CLIENT_ID = "soci-pipeline"


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    until: float


class Authorizer:
    """The Authorization headers for one registry."""

    def __init__(
        self, http: httpx.Client, registry: str, provider: CredentialProvider | None, *, plain_http: bool
    ) -> None:
        self._http = http
        self._registry = registry
        self._provider = provider
        self._plain_http = plain_http
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._basic: str | None = None
        self._origin: str | None = None
        self._has_login = False
        self._tokens: dict[frozenset[str], _Token] = {}

    @property
    def has_login(self) -> bool:
        """Whether the headers stand for somebody's credentials; a token may be for everybody too."""
        return self._has_login

    def header(self, scopes: frozenset[str]) -> str | None:
        """The header for a request that needs these scopes; None as long as the registry has asked for nothing."""
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
        """Take in a 401: after this, `header` gives another answer than ``sent``, or the same one anew.

        Credentials that were refused are asked for again, so that a provider whose token was withdrawn gives another.
        Raises `AccessRefused` where there is nothing to answer with.
        """
        challenge = _choose(challenge_header or "")
        if challenge is None:
            raise AccessRefused(f"{redacted(url)} wants an authentication that is not known here", status=401, url=url)
        with self._lock:
            self._challenge = challenge
            if challenge.scheme == "basic":
                self._basic = self._next_basic(url, sent)
                return
            known = self._tokens.get(scopes)
            # Another thread may have fetched a new one since.
            if known is None or known.header == sent:
                asked = scopes | frozenset(challenge.parameters.get("scope", "").split())
                self._tokens[scopes] = self._fetch(challenge, asked, refused=sent)

    def renewed(self, scopes: frozenset[str], *, sent: str | None) -> bool:
        """After a refusal that blames the token's age: whether `header` has another answer than ``sent`` now."""
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
            reason = f"{self._registry} asks for a user and a password, and there are none"
            raise AccessRefused(reason, url=url, advice=self._advice())
        if header == sent:
            reason = f"{self._registry} does not take the user and password (status 401)"
            raise AccessRefused(reason, url=url, advice=self._advice())
        return header

    def _other_basic(self, sent: str | None) -> str | None:
        """The header to use after ``sent`` was refused."""
        if self._basic not in (None, sent):
            # Another thread has replaced it since; asking once more would only cost a request.
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
        """Where the refused credentials come from; None where that is not known, for the advice of the error itself."""
        if self._origin is None:
            return None
        return f"Correct {self._origin} in the environment, or unset what is there to use what `docker login` left."

    def _fetch(self, challenge: Challenge, scopes: frozenset[str], *, refused: str | None = None) -> _Token:
        """A token for some scopes; ``refused`` is the header that the registry has just turned down."""
        realm = self._checked_realm(challenge.parameters.get("realm", ""))
        credentials = self._credentials()
        try:
            return self._exchange(challenge, realm, scopes, credentials, refused)
        except AccessRefused:
            if credentials is None or self._provider is None:
                raise
            self._provider.forget(self._registry)
            fresh = self._credentials()
            if fresh == credentials:
                raise
            return self._exchange(challenge, realm, scopes, fresh, refused)

    def _exchange(
        self,
        challenge: Challenge,
        realm: str,
        scopes: frozenset[str],
        credentials: Credentials | None,
        refused: str | None,
    ) -> _Token:
        """Give credentials for a token, by the token or the OAuth protocol; a registry's own token is one already."""
        if credentials is not None and credentials.registry_token is not None:
            header = f"Bearer {credentials.registry_token.get_secret_value()}"
            if header == refused:
                raise AccessRefused(f"{self._registry} does not take the registry token (status 401)", url=realm)
            return _Token(header, float("inf"))
        service = challenge.parameters.get("service", "")
        if credentials is not None and credentials.identity_token is not None:
            fields = {
                "grant_type": "refresh_token",
                "refresh_token": credentials.identity_token.get_secret_value(),
                "client_id": _CLIENT_ID,
                "service": service,
                "scope": " ".join(merged(scopes)),
            }
            secrets = (credentials.identity_token.get_secret_value(),)
            return self._ask("POST", httpx.URL(realm), fields=fields, secrets=secrets)
        query: list[tuple[str, str]] = [("service", service)] if service else []
        query += [("scope", scope) for scope in merged(scopes)]
        basic = None if credentials is None else credentials.basic()
        if credentials is not None and basic is not None:
            query.append(("account", credentials.username))
        url = httpx.URL(realm)
        url = url.copy_with(params=[*url.params.multi_items(), *query])
        return self._ask("GET", url, authorization=basic, secrets=secrets_of(basic))

    def _checked_realm(self, realm: str) -> str:
        url = address(realm)
        if url is not None and url.host and not url.userinfo:
            on_this_machine = is_loopback(url.host) and is_loopback(self._registry)
            its_own = on_this_machine or url.host == hostname(self._registry).strip("[]")
            # A registry that is reached over https never sends a login on to plain http.
            if url.scheme == "https" or (url.scheme == "http" and self._plain_http and its_own):
                return realm
        raise AccessRefused(
            f"{self._registry} sends logins to {redacted(realm)[:200]!r}, which is no https address; nothing was sent",
            url=realm,
            advice="Ask the registry's operator for a token address over https.",
        )

    def _ask(
        self,
        method: str,
        url: httpx.URL,
        *,
        authorization: str | None = None,
        fields: dict[str, str] | None = None,
        secrets: Collection[str] = (),
    ) -> _Token:
        # Bodies are read as they come, so none may be compressed.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if authorization is not None:
            headers["Authorization"] = authorization
        deadline, where = Deadline(_TOKEN_SECONDS), redacted(str(url))
        try:
            request = self._http.build_request(method, url, data=fields, headers=headers, timeout=_TOKEN_SECONDS)
            response = self._http.send(request, stream=True)
            with contextlib.closing(response):
                body = bounded(response, _MAX_TOKEN_BYTES, deadline)
        except BadRedirect as error:
            raise BrokenAnswer(f"the token address {where} {error}", url=where) from error
        except httpx.HTTPError as error:
            reason = f"the token address {where} cannot be reached: {type(error).__name__}"
            raise RegistryUnreachable(reason, url=where, temporary=True) from error
        if response.status_code != 200:
            failure = from_answer(
                method, str(url), response.status_code, response.headers, body, now=time.time(), secrets=secrets
            )
            if response.status_code in (400, 401, 403, 404):
                raise AccessRefused(
                    failure.reason, code=failure.code, status=failure.status, url=failure.url, advice=self._advice()
                )
            raise failure
        return _token(body, str(url))


def secrets_of(authorization: str | None) -> tuple[str, ...]:
    """What no message may repeat of an Authorization header: its value, and the password in it."""
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return (value,)
    return value, base64.b64decode(value).decode().partition(":")[2]


def bounded(response: httpx.Response, limit: int, deadline: Deadline) -> bytes:
    """A response's body, as it came; raises `BrokenAnswer` where it is longer than ``limit`` bytes."""
    data = bytearray()
    for chunk in response.iter_raw():
        # A body that comes byte by byte never runs into the timeout of a single read.
        deadline.check()
        data += chunk
        if len(data) > limit:
            url = redacted(str(response.request.url))
            raise BrokenAnswer(f"{url} answered with more than {limit} bytes where less was due", url=url)
    return bytes(data)


def _token(body: bytes, url: str) -> _Token:
    try:
        fields: Any = json.loads(body)
        token = fields.get("token") or fields["access_token"]
        life = float(fields.get("expires_in") or _DEFAULT_LIFE)
        if not isinstance(token, str) or not token.isprintable() or not token.isascii():
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise BrokenAnswer(f"the token address {redacted(url)} did not answer with a token", url=url) from None
    return _Token(f"Bearer {token}", time.monotonic() + life * (1 - _MARGIN))


def _choose(header: str) -> Challenge | None:
    known = {challenge.scheme: challenge for challenge in reversed(parse_challenges(header))}
    return known.get("bearer") or known.get("basic")
