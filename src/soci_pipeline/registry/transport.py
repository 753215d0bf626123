"""One HTTP request to a registry: authorization, redirects, limits and errors. Independent of the endpoints.

URLs from the registry (Location, Link) are resolved against the request's URL and checked. The Authorization header is
sent only to the registry, never to another host that it redirects to.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import httpx

from soci_pipeline.http_client import BadRedirect
from soci_pipeline.log import logger
from soci_pipeline.registry import scopes
from soci_pipeline.registry.auth import CredentialProvider
from soci_pipeline.registry.authorizer import Authorizer, bounded, secrets_of
from soci_pipeline.registry.errors import (
    MAX_ERROR_BYTES,
    AccessRefused,
    BrokenAnswer,
    RegistryError,
    RegistryUnreachable,
    from_answer,
)
from soci_pipeline.registry.reference import DOCKER_HUB, is_local_registry
from soci_pipeline.registry.settings import ClientSettings
from soci_pipeline.retry import Deadline
from soci_pipeline.urls import address, is_same_origin, over_tls, redacted

Body = Callable[[], Iterable[bytes]]
"""Creates the request body, once per attempt."""

_HUB_HOST = "registry-1.docker.io"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_MAX_LOGINS = 2
_MAX_LOCATION = 8 << 10
_MAX_DIGITS = 18
# 500: Nexus 3.96, for a HEAD of any manifest.
_NO_HEAD = frozenset({405, 500, 501})
# Storage services return these for a HEAD request to a URL that was signed for GET.
_OTHER_SIGNATURE = frozenset({400, 403})
# As in ECR's "Your authorization token has expired".
_EXPIRED = re.compile(r"token[^.]*\bexpired\b|expired[ _-]?token", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with its complete body."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: httpx.URL


@dataclass(frozen=True, slots=True)
class Call:
    """A request without its Authorization header; ``length`` is the body's size, ``expect`` the successful statuses."""

    method: str
    url: httpx.URL
    scopes: frozenset[str]
    expect: frozenset[int]
    headers: Mapping[str, str] | None = None
    body: Body | None = None
    length: int = 0


class Transport:
    """Sends requests to one registry; thread-safe."""

    def __init__(
        self,
        registry: str,
        *,
        credentials: CredentialProvider | None,
        plain_http: bool,
        http: httpx.Client,
        settings: ClientSettings,
        permissions: Mapping[str, str] | None = None,
    ) -> None:
        self.registry = registry
        self._permissions = permissions or {}
        self.settings = settings
        host = _HUB_HOST if registry == DOCKER_HUB else registry
        self.base = httpx.URL(f"{'http' if plain_http else 'https'}://{host}/v2/")
        self._base = str(self.base)
        self._http = http
        self._authorizer = Authorizer(http, registry, credentials, plain_http=plain_http)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def url(self, path: str, **query: str) -> httpx.URL:
        """Return the URL of a path below ``/v2/``; the result is always on this registry."""
        # Do not use httpx's join: it parses twice, which takes a tenth of the time of a small request.
        text = f"{self._base}{path}"
        return httpx.URL(text, params=query) if query else httpx.URL(text)

    def call(self, call: Call, deadline: Deadline, *, limit: int = MAX_ERROR_BYTES) -> Answer:
        """Send a request and read the response, at most ``limit`` bytes.

        Raises `RegistryError` for a status that is not expected.
        """
        with self.open(call, deadline) as response:
            with network_errors(call.method, response.request.url):
                body = bounded(response, limit, deadline)
            return Answer(response.status_code, response.headers, body, response.request.url)

    def head(self, call: Call, deadline: Deadline) -> Answer:
        """Send a HEAD request, or a GET request without reading its body if the server does not support HEAD.

        A Content-Length of 0 is also checked with a GET request: some servers send it with every HEAD response.
        """
        try:
            answer = self.call(call, deadline)
            if answer.headers.get("content-length") != "0":
                return answer
        except RegistryError as error:
            if not self._has_no_head(error):
                raise
        with self.open(replace(call, method="GET"), deadline) as response:
            return Answer(response.status_code, response.headers, b"", response.request.url)

    def _has_no_head(self, error: RegistryError) -> bool:
        if error.status in _NO_HEAD:
            return True
        return error.status in _OTHER_SIGNATURE and not self.is_own(httpx.URL(error.url))

    @contextlib.contextmanager
    def open(self, call: Call, deadline: Deadline) -> Iterator[httpx.Response]:
        """Like `call`, but the caller reads the body, inside `network_errors`."""
        response = self._authorized(call, deadline)
        try:
            if response.status_code not in call.expect:
                raise self._error(response, call, deadline)
            yield response
        finally:
            response.close()

    def _authorized(self, call: Call, deadline: Deadline) -> httpx.Response:
        for login in range(_MAX_LOGINS + 1):
            sent = self._authorizer.header(call.scopes)
            response = self._redirected(call, sent, deadline)
            if login == _MAX_LOGINS or response.status_code not in (401, 403):
                return response
            if not self.is_own(response.request.url):
                # Credentials are only for the registry: ignore challenges from servers that it redirects to.
                return response
            challenge = response.headers.get("www-authenticate")
            if response.status_code == 403 and (sent is not None or challenge is None):
                self._renew(response, call, sent, deadline)
                continue
            url = str(response.request.url)
            response.close()
            challenge = challenge or self._challenge_of_base(call, deadline)
            self._authorizer.refused(challenge, call.scopes, sent=sent, url=url)
        raise AssertionError("the loop ends by a return")

    def _challenge_of_base(self, call: Call, deadline: Deadline) -> str | None:
        """Return the challenge of ``/v2/``, or None; for a 401 without one (Artifactory and others, for HEAD)."""
        if call.url == self.base:
            return None
        response = self._redirected(replace(call, method="GET", url=self.base, body=None), None, deadline)
        with contextlib.closing(response):
            is_challenge = response.status_code == 401 and self.is_own(response.request.url)
            return response.headers.get("www-authenticate") if is_challenge else None

    def _renew(self, response: httpx.Response, call: Call, sent: str | None, deadline: Deadline) -> None:
        """Drop the token after a 403 for an expired one, as ECR sends it; raise the error of any other 403."""
        with contextlib.closing(response):
            error = self._error(response, call, deadline)
        if not _is_expired(error) or not self._authorizer.renewed(call.scopes, sent=sent):
            raise error

    def _redirected(self, call: Call, authorization: str | None, deadline: Deadline) -> httpx.Response:
        url, method = call.url, call.method
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._send(call, method, url, authorization, deadline)
            if response.status_code not in _REDIRECTS or "location" not in response.headers:
                return response
            if method not in ("GET", "HEAD") and response.status_code not in (307, 308):
                return response
            target = self.location(response.headers, response.request.url)
            response.close()
            # After a redirect to another host, do not send credentials again, even if it redirects back.
            authorization = authorization if self.is_own(target) else None
            url = target
        reason = f"{redacted(str(call.url))} redirects more than {_MAX_REDIRECTS} times"
        raise BrokenAnswer(reason, url=str(call.url))

    def _send(
        self, call: Call, method: str, url: httpx.URL, authorization: str | None, deadline: Deadline
    ) -> httpx.Response:
        deadline.check()
        headers = {"Accept-Encoding": "identity", **(call.headers or {})}
        if authorization is not None and self.is_own(url):
            headers["Authorization"] = authorization
        if call.body is not None or method in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = str(call.length)
        timeout = httpx.Timeout(
            min(self.settings.read_timeout, deadline.left + 0.1),
            connect=min(self.settings.connect_timeout, deadline.left + 0.1),
            pool=None,
        )
        content = None if call.body is None else call.body()
        started = time.monotonic()
        with network_errors(method, url):
            request = self._http.build_request(method, url, headers=headers, content=content, timeout=timeout)
            response = self._http.send(request, stream=True)
        took = time.monotonic() - started
        logger().debug("%s %s: %d in %.3f s", method, redacted(str(url)), response.status_code, took)
        return response

    def is_own(self, url: httpx.URL) -> bool:
        """Whether a URL is on the registry: same scheme, host and port, and no user info."""
        return is_same_origin(url, self.base) and not url.userinfo

    def location(self, headers: httpx.Headers, request_url: httpx.URL) -> httpx.URL:
        """Return the Location of a response, resolved against the request's URL; raise `BrokenAnswer` if not valid."""
        text = headers.get("location", "")
        where = redacted(str(request_url))
        if not text or len(text) > _MAX_LOCATION:
            raise BrokenAnswer(f"{where} returned no usable Location", url=where)
        url = address(text, base=request_url)
        if url is None:
            raise BrokenAnswer(f"{where} returned a Location that is not a valid URL", url=where)
        url = over_tls(url, self.base)
        if url.scheme == "http" and self.base.scheme == "https":
            raise BrokenAnswer(f"{where} redirects from https to http at {url.host}; not followed", url=where)
        if url.scheme not in ("http", "https") or not url.host or url.userinfo:
            raise BrokenAnswer(f"{where} returned a Location that is not an http or https URL", url=where)
        on_this_machine = is_local_registry(url.host) and is_local_registry(self.base.host)
        if url.scheme == "http" and url.host != self.base.host and not on_this_machine:
            raise BrokenAnswer(f"{where} redirects to plain http at {url.host}; not followed", url=where)
        return url

    def _error(self, response: httpx.Response, call: Call, deadline: Deadline) -> RegistryError:
        data = bytearray()
        with contextlib.suppress(httpx.HTTPError):
            for chunk in response.iter_raw():
                data += chunk
                # The status is known, so do not wait for the rest of a slow message.
                if len(data) >= MAX_ERROR_BYTES or deadline.left <= 0:
                    break
        request = response.request
        error = from_answer(
            request.method,
            str(request.url),
            response.status_code,
            response.headers,
            bytes(data),
            now=time.time(),
            secrets=secrets_of(request.headers.get("authorization")),
        )
        lacking = scopes.object_of(call.scopes)
        if lacking is not None and self._lacks_permission(error, response):
            error.advice = self._permission_advice(*lacking)
        return error

    def _lacks_permission(self, error: RegistryError, response: httpx.Response) -> bool:
        """Whether an authenticated request lacks permission (a 401 otherwise means that authentication failed)."""
        if not isinstance(error, AccessRefused) or not self._authorizer.has_login:
            return False
        if "authorization" not in response.request.headers or _is_expired(error):
            return False
        # A token server may accept the credentials and issue a token with less scope than requested.
        too_little = "insufficient_scope" in response.headers.get("www-authenticate", "")
        return error.status == 403 or error.code == "DENIED" or too_little

    def _permission_advice(self, action: str, repository: str) -> str:
        way = self._permissions.get(action, "Grant it to the user in the registry, or log in as a user who has it.")
        return f"The login was accepted, but lacks the permission to {action} on {repository}. {way}"


def _is_expired(error: RegistryError) -> bool:
    # Do not match "expired" alone: messages include the repository's name, which may contain it.
    return _EXPIRED.search(f"{error.code} {error.message}") is not None


def is_size(text: str) -> bool:
    """Whether a header is a valid number of bytes; the length limit avoids Python's error for very long numbers."""
    return text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS


@contextlib.contextmanager
def network_errors(method: str, url: httpx.URL) -> Iterator[None]:
    """Convert errors of the HTTP library to `RegistryUnreachable`, temporary unless certificate verification failed.

    A redirect to an invalid URL raises `BrokenAnswer`.
    """
    where = redacted(str(url))
    try:
        yield
    except BadRedirect as error:
        raise BrokenAnswer(f"{method} {where} {error}", url=where) from error
    except httpx.TimeoutException as error:
        reason = f"{method} {where}: no answer before the timeout ({type(error).__name__})"
        raise RegistryUnreachable(reason, url=where, temporary=True) from error
    except httpx.LocalProtocolError:
        # The message may quote the Authorization header, so drop it, also as the cause.
        reason = f"{method} {where}: the request is not valid HTTP"
        raise RegistryUnreachable(reason, url=where, temporary=True) from None
    except httpx.HTTPError as error:
        detail = _detail(error)
        lasting = "CERTIFICATE_VERIFY_FAILED" in detail
        advice = RegistryUnreachable.hub_advice if url.host == _HUB_HOST else None
        advice = RegistryUnreachable.tls_advice if "SSL" in detail else advice
        if (
            isinstance(error, httpx.RemoteProtocolError)
            and url.scheme == "http"
            and is_local_registry(url.netloc.decode("ascii"))
        ):
            # A server that expects TLS responds with nothing or with bytes that are not HTTP.
            advice = RegistryUnreachable.plain_advice
        raise RegistryUnreachable(
            f"{method} {where}: {detail}", url=where, temporary=not lasting, advice=advice
        ) from error


def _detail(error: httpx.HTTPError) -> str:
    """Return the error's message without its errno, or its type if there is no message."""
    words = re.sub(r"\A\[Errno -?\d+\] ", "", f"{error!s:.200}")
    return words or type(error).__name__
