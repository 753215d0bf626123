"""An HTTP client that raises only `httpx.HTTPError`, whatever a server answers or a caller passes in.

httpx itself raises `httpx.InvalidURL`, `UnicodeError` or `OverflowError` for a redirect to an invalid URL, a host that
cannot be looked up, a port above 65535, and a non-ASCII header.
"""

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final
from urllib.request import getproxies

import httpx

from soci_pipeline.errors import InvalidInput
from soci_pipeline.urls import address

Verification = ssl.SSLContext | bool | Callable[[], ssl.SSLContext]
"""As for `httpx.Client`, or a function that creates the context on first use."""

_NOT_HTTP: Final = (httpx.InvalidURL, UnicodeError, OverflowError)
_SHOWN: Final = 100
_MAX_BODY: Final = 64 << 20
_BODY_SECONDS: Final = 60.0
_FRAMING: Final = (b"content-encoding", b"content-length", b"transfer-encoding")


class BadRedirect(httpx.RemoteProtocolError):
    """A server redirects to something that is not an http(s) URL; the message is safe to show."""


class _LaterTls(httpx.BaseTransport):
    """A transport for https that loads the trusted CA certificates for the first connection.

    Loading them takes up to a tenth of a second, and most clients only use plain http on this machine.
    """

    def __init__(self, make_context: Callable[[], ssl.SSLContext], limits: httpx.Limits) -> None:
        self._make_context = make_context
        self._limits = limits
        self._lock = threading.Lock()
        self._inner: httpx.HTTPTransport | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            if self._inner is None:
                self._inner = httpx.HTTPTransport(verify=self._context(request), limits=self._limits)
        return self._inner.handle_request(request)

    def _context(self, request: httpx.Request) -> ssl.SSLContext:
        try:
            return self._make_context()
        except OSError as error:
            reason = f"cannot read this machine's trusted certificates: {error.strerror}"
            raise httpx.ConnectError(reason, request=request) from error

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()


class HttpClient(httpx.Client):
    """An `httpx.Client` without cookies. Redirects are followed only if ``follow_redirects`` is set.

    If ``verify`` is omitted or a function, the trusted CA certificates are loaded on first use; immediately if the
    environment names a proxy.

    The constructor raises `InvalidInput` for a proxy in the environment that is not an http(s) URL. Requests raise
    `BadRedirect` for a redirect to an invalid URL, `httpx.LocalProtocolError` for a header that cannot be sent (the
    message does not quote it), and another `httpx.HTTPError` for everything else.
    """

    def __init__(self, *, verify: Verification = True, **options: Any) -> None:
        # Cookies are bound to neither scheme nor port, and no server used here needs them.
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        try:
            super().__init__(
                event_hooks={"response": [_check_redirect]}, cookies=no_cookies, **_trust(verify, options), **options
            )
        except (httpx.InvalidURL, ImportError, ValueError) as error:
            # Without a cause: a proxy's URL may contain a password.
            raise InvalidInput(
                f"the proxy in the environment is not valid ({type(error).__name__})",
                advice="Set HTTP_PROXY, HTTPS_PROXY and ALL_PROXY to URLs like http://proxy.example.com:3128, or "
                "unset them.",
            ) from None

    def build_request(self, *arguments: Any, **options: Any) -> httpx.Request:
        """As in `httpx.Client`; raises `httpx.LocalProtocolError` if the request cannot be encoded."""
        try:
            return super().build_request(*arguments, **options)
        except _NOT_HTTP as error:
            # Neither the message nor a cause: both would quote the header, which may contain credentials.
            raise httpx.LocalProtocolError(f"the request cannot be encoded ({type(error).__name__})") from None

    def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """As in `httpx.Client`; raises `httpx.ConnectError` for an invalid host or port.

        Without ``stream``, raises `httpx.ReadError` for a body of more than 64 MiB, or one that takes over a minute.
        """
        try:
            response = super().send(request, stream=True, **options)
        except _NOT_HTTP as error:
            raise httpx.ConnectError(f"not a valid host or port ({type(error).__name__})", request=request) from error
        return response if stream else _read(response)


def _trust(verify: Verification, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of `httpx.Client` for ``verify``, so that certificates are loaded as late as possible."""
    if verify is False or isinstance(verify, ssl.SSLContext):
        return {"verify": verify}
    make = verify if callable(verify) else httpx.create_ssl_context
    if options.get("trust_env", True) and getproxies():
        return {"verify": make()}
    https = _LaterTls(make, options.get("limits", httpx.Limits()))
    # This context trusts no CA, so https works only through the mounted transport.
    return {"verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "mounts": {"https://": https}}


def _read(response: httpx.Response) -> httpx.Response:
    """Return the response with its body read and decoded, within the limits."""
    deadline, body = time.monotonic() + _BODY_SECONDS, bytearray()
    with contextlib.closing(response):
        for piece in response.iter_bytes():
            body += piece
            if len(body) > _MAX_BODY or time.monotonic() > deadline:
                raise httpx.ReadError("the body is too long or too slow", request=response.request)
    kept = [pair for pair in response.headers.raw if pair[0].lower() not in _FRAMING]
    return httpx.Response(response.status_code, headers=kept, content=bytes(body), request=response.request)


def text_of(response: httpx.Response) -> str:
    """Return the body decoded as UTF-8; the response's charset is ignored, since it may name a codec that fails."""
    return response.content.decode(errors="replace")


def _check_redirect(response: httpx.Response) -> None:
    if not response.has_redirect_location:
        return
    location = response.headers["location"]
    url = address(location, base=response.request.url)
    if url is None or url.scheme not in ("http", "https") or not url.host:
        shown = repr(location.partition("?")[0].rpartition("@")[2][:_SHOWN])
        raise BadRedirect(f"redirects to something that is not a URL: {shown}", request=response.request)
