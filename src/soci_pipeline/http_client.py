"""An HTTP client that fails with `httpx.HTTPError` alone, whatever a server answers or a caller passes in.

httpx itself raises `httpx.InvalidURL`, `UnicodeError` or `OverflowError` for a redirect to something that is not a URL,
a host that cannot be looked up, a port past 65535, and a header that is not ASCII.
"""

import contextlib
import time
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpx

from soci_pipeline.errors import InvalidInput
from soci_pipeline.urls import address

_NOT_HTTP: Final = (httpx.InvalidURL, UnicodeError, OverflowError)
_SHOWN: Final = 100
_MAX_BODY: Final = 64 << 20
_BODY_SECONDS: Final = 60.0
_FRAMING: Final = (b"content-encoding", b"content-length", b"transfer-encoding")


class BadRedirect(httpx.RemoteProtocolError):
    """A server redirects to something that is not an http(s) URL; its text is safe to show."""


class HttpClient(httpx.Client):
    """An `httpx.Client` without cookies. Redirects are not followed unless ``follow_redirects`` is set.

    The constructor raises `InvalidInput` for a proxy in the environment that is not an http(s) URL. Requests raise
    `BadRedirect` for a redirect that leads nowhere, `httpx.LocalProtocolError` for a header that cannot be sent
    (the message does not quote it), and another `httpx.HTTPError` for everything else.
    """

    def __init__(self, **options: Any) -> None:
        # Cookies are bound to neither scheme nor port, and no server that is used here needs them.
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        try:
            super().__init__(event_hooks={"response": [_check_redirect]}, cookies=no_cookies, **options)
        except (httpx.InvalidURL, ImportError, ValueError) as error:
            # Not as a cause: a proxy's URL may hold a password.
            raise InvalidInput(
                f"the proxy of the environment cannot be used ({type(error).__name__})",
                advice="Set HTTP_PROXY, HTTPS_PROXY and ALL_PROXY as in http://proxy.example.com:3128, or unset them.",
            ) from None

    def build_request(self, *arguments: Any, **options: Any) -> httpx.Request:
        """As in `httpx.Client`; raises `httpx.LocalProtocolError` for what cannot be encoded."""
        try:
            return super().build_request(*arguments, **options)
        except _NOT_HTTP as error:
            # Neither the message nor a cause: both would quote the header, which may be a login.
            raise httpx.LocalProtocolError(f"the request cannot be encoded ({type(error).__name__})") from None

    def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """As in `httpx.Client`; raises `httpx.ConnectError` for a host or port that no connection can be made to.

        Without ``stream``, raises `httpx.ReadError` for a body of more than 64 MiB, or one that takes over a minute.
        """
        try:
            response = super().send(request, stream=True, **options)
        except _NOT_HTTP as error:
            raise httpx.ConnectError(f"not a valid host or port ({type(error).__name__})", request=request) from error
        return response if stream else _read(response)


def _read(response: httpx.Response) -> httpx.Response:
    """The response with its body read and decoded, within bounds."""
    deadline, body = time.monotonic() + _BODY_SECONDS, bytearray()
    with contextlib.closing(response):
        for piece in response.iter_bytes():
            body += piece
            if len(body) > _MAX_BODY or time.monotonic() > deadline:
                raise httpx.ReadError("the body is too long or too slow", request=response.request)
    kept = [pair for pair in response.headers.raw if pair[0].lower() not in _FRAMING]
    return httpx.Response(response.status_code, headers=kept, content=bytes(body), request=response.request)


def text_of(response: httpx.Response) -> str:
    """The body as UTF-8; the charset of the answer is ignored, since it may name a codec that fails."""
    return response.content.decode(errors="replace")


def _check_redirect(response: httpx.Response) -> None:
    if not response.has_redirect_location:
        return
    location = response.headers["location"]
    url = address(location, base=response.request.url)
    if url is None or url.scheme not in ("http", "https") or not url.host:
        shown = repr(location.partition("?")[0].rpartition("@")[2][:_SHOWN])
        raise BadRedirect(f"redirects to something that is not a URL: {shown}", request=response.request)
