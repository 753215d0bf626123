"""Registries that misbehave: a test's own application over real HTTP."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from soci_pipeline.http_server.server import listen
from soci_pipeline.registry.server.serving import make_server
from tests.support.certificates import Pair

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


@contextmanager
def strange(app: Starlette | Callable[[Request], Awaitable[Response]], *, tls: Pair | None = None) -> Iterator[str]:
    """Serve an application, or one handler for everything; yield its address. With ``tls``, over https."""
    if not isinstance(app, Starlette):
        app = Starlette(routes=[Route("/{rest:path}", app, methods=_METHODS)])
    certificate, key = (tls.certificate, tls.key) if tls else (None, None)
    with (
        listen("127.0.0.1", 0) as listener,
        make_server(app, listener, tls_cert=certificate, tls_key=key).running("strange registry"),
    ):
        yield f"127.0.0.1:{listener.getsockname()[1]}"
