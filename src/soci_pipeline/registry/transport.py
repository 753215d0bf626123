"""One HTTP exchange with a registry: authorization, redirects, bounds and the error tree. Knows no endpoints.

URLs that come from the registry (Location, Link) are joined to the request's own and checked. Authorization goes to the
registry alone, never to another host that it redirects to.
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
"""Makes the body anew for each try."""

_HUB_HOST = "registry-1.docker.io"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_MAX_LOGINS = 2
_MAX_LOCATION = 8 << 10
_MAX_DIGITS = 18
# 500: Nexus 3.96, for every manifest.
_NO_HEAD = frozenset({405, 500, 501})
# A storage service answers so to a HEAD request under a URL that was signed for GET.
_OTHER_SIGNATURE = frozenset({400, 403})
# As in ECR's "Your authorization token has expired".
_EXPIRED = re.compile(r"token[^.]*\bexpired\b|expired[ _-]?token", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body was read."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: httpx.URL


@dataclass(frozen=True, slots=True)
class Call:
    """A request before its authorization. ``length`` is the body's size; ``expect`` are the statuses that are fine."""

    method: str
    url: httpx.URL
    scopes: frozenset[str]
    expect: frozenset[int]
    headers: Mapping[str, str] | None = None
    body: Body | None = None
    length: int = 0


class Transport:
    """Talks to one registry; threads share it."""

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
        """Close every connection."""
        self._http.close()

    def url(self, path: str, **query: str) -> httpx.URL:
        """The URL of a path below ``/v2/``; whatever the path, it is one of this registry."""
        # In one piece: httpx parses twice to join, which takes a tenth of the time of a small request.
        text = f"{self._base}{path}"
        return httpx.URL(text, params=query) if query else httpx.URL(text)

    def call(self, call: Call, deadline: Deadline, *, limit: int = MAX_ERROR_BYTES) -> Answer:
        """Do one exchange and read its body up to ``limit`` bytes; raises `RegistryError` for another status."""
        with self.open(call, deadline) as response:
            with network_errors(call.method, response.request.url):
                body = bounded(response, limit, deadline)
            return Answer(response.status_code, response.headers, body, response.request.url)

    def head(self, call: Call, deadline: Deadline) -> Answer:
        """Do a HEAD request, or a GET request whose body is not read where the server does not support HEAD.

        A length of 0 is checked by a GET request too: some servers send it with every HEAD answer.
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
        """As `call`, but the body is the caller's to read (with `network_errors` around it)."""
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
                # A login is for the registry: another server that it leads to may not ask for one, nor name a realm.
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
        """The challenge of ``/v2/``, for a 401 that has none of its own (Artifactory and others answer HEAD so)."""
        if call.url == self.base:
            return None
        response = self._redirected(replace(call, method="GET", url=self.base, body=None), None, deadline)
        with contextlib.closing(response):
            is_challenge = response.status_code == 401 and self.is_own(response.request.url)
            return response.headers.get("www-authenticate") if is_challenge else None

    def _renew(self, response: httpx.Response, call: Call, sent: str | None, deadline: Deadline) -> None:
        """ECR answers 403 to a token that is too old; any other 403 is raised."""
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
            # What has left the registry once is not trusted to lead back to it with a login.
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
        """Whether a URL is the registry's own: same scheme, host and port, and no user in it."""
        return is_same_origin(url, self.base) and not url.userinfo

    def location(self, headers: httpx.Headers, request_url: httpx.URL) -> httpx.URL:
        """The Location of an answer, joined to the request's URL and checked; raises `BrokenAnswer`."""
        text = headers.get("location", "")
        where = redacted(str(request_url))
        if not text or len(text) > _MAX_LOCATION:
            raise BrokenAnswer(f"{where} answered without a usable Location", url=where)
        url = address(text, base=request_url)
        if url is None:
            raise BrokenAnswer(f"{where} answered with a Location that is no URL", url=where)
        url = over_tls(url, self.base)
        if url.scheme == "http" and self.base.scheme == "https":
            raise BrokenAnswer(f"{where} leads from https to http at {url.host}; not followed", url=where)
        if url.scheme not in ("http", "https") or not url.host or url.userinfo:
            raise BrokenAnswer(f"{where} answered with a Location that is no web address", url=where)
        on_this_machine = is_local_registry(url.host) and is_local_registry(self.base.host)
        if url.scheme == "http" and url.host != self.base.host and not on_this_machine:
            raise BrokenAnswer(f"{where} leads to plain http at {url.host}; not followed", url=where)
        return url

    def _error(self, response: httpx.Response, call: Call, deadline: Deadline) -> RegistryError:
        data = bytearray()
        with contextlib.suppress(httpx.HTTPError):
            for chunk in response.iter_raw():
                data += chunk
                # The status is known, so words that come too slowly are done without.
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
        if lacking is not None and self._is_lack_of_permission(error, response):
            error.advice = self._how_to_permit(*lacking)
        return error

    def _is_lack_of_permission(self, error: RegistryError, response: httpx.Response) -> bool:
        """Whether a refusal is not of the login: who has none, or a wrong one, is asked for another (401)."""
        if not isinstance(error, AccessRefused) or not self._authorizer.has_login:
            return False
        if "authorization" not in response.request.headers or _is_expired(error):
            return False
        # A token server takes the login first, and gives a token of less scope to who may not have more.
        too_little = "insufficient_scope" in response.headers.get("www-authenticate", "")
        return error.status == 403 or error.code == "DENIED" or too_little

    def _how_to_permit(self, action: str, repository: str) -> str:
        way = self._permissions.get(action, "Give its user that in the registry, or log in as one who has it.")
        return f"The login was accepted, but lacks the permission to {action} on {repository}. {way}"


def _is_expired(error: RegistryError) -> bool:
    # Not the word alone: messages and their details name the repository, which may be called so.
    return _EXPIRED.search(f"{error.code} {error.message}") is not None


def is_size(text: str) -> bool:
    """Whether a header holds a number of bytes; Python reads no numbers of thousands of digits."""
    return text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS


@contextlib.contextmanager
def network_errors(method: str, url: httpx.URL) -> Iterator[None]:
    """Turn what the HTTP library raises into `RegistryUnreachable`; it is temporary unless TLS was refused.

    A redirect to something that is not a URL raises `BrokenAnswer`.
    """
    where = redacted(str(url))
    try:
        yield
    except BadRedirect as error:
        raise BrokenAnswer(f"{method} {where} {error}", url=where) from error
    except httpx.TimeoutException as error:
        reason = f"{method} {where}: no answer in time ({type(error).__name__})"
        raise RegistryUnreachable(reason, url=where, temporary=True) from error
    except httpx.LocalProtocolError:
        # Its words quote the header that cannot be sent, which may be a login: they go no further, not even as a cause.
        reason = f"{method} {where}: what was to be sent is not HTTP"
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
            # Bytes that are no HTTP, or none at all: so a server answers that expects TLS.
            advice = RegistryUnreachable.plain_advice
        raise RegistryUnreachable(
            f"{method} {where}: {detail}", url=where, temporary=not lasting, advice=advice
        ) from error


def _detail(error: httpx.HTTPError) -> str:
    """What happened, as the system puts it; without its number, where there is one."""
    words = re.sub(r"\A\[Errno -?\d+\] ", "", f"{error!s:.200}")
    return words or type(error).__name__
